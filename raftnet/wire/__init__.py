"""Bytes and values of the protocol (protocol.md); no sockets."""
