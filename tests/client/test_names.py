"""What a user of the library must name can be imported from raftnet.client: whatever its public
methods take, give and raise, by their annotations and by the words of their docstrings."""

import importlib
import inspect
import pkgutil
import re
import sys
import typing
import unittest

import raftnet.client
from raftnet import errors
from raftnet.client import Client, Queue

# Those that a caller never names: a plain function is passed.
_PLAIN = {raftnet.client.client.Progress}
# A word of a docstring that names a class, not one that begins a sentence.
_CLASS = re.compile(r"\b(?:[A-Z][a-z]+(?:[A-Z][a-z]+)+|Message|Outcome|Setting)\b")


def public_methods():
    """(name, function) of what a user calls."""
    for owner in (Client, Queue):
        for name, function in vars(owner).items():
            if inspect.isfunction(function) and (name == "__init__" or not name.startswith("_")):
                yield f"{owner.__name__}.{name}", function


def names_of_the_library() -> dict[str, object]:
    """The classes of the library and of what it is built on, by name."""
    found = {}
    for package in ("raftnet.client", "raftnet.wire", "raftnet.raft.entry"):
        module = importlib.import_module(package)
        names = [found.name for found in pkgutil.iter_modules(getattr(module, "__path__", []))]
        for module in [module] + [importlib.import_module(f"{package}.{name}") for name in names]:
            found |= {name: value for name, value in vars(module).items()
                      if inspect.isclass(value) and value.__module__ == module.__name__}
    return found | {name: value for name, value in vars(errors).items() if inspect.isclass(value)}


def classes_in(annotation: object) -> set[type]:
    """Our own classes in it, at any depth, and in the fields of those that have some."""
    if annotation in _PLAIN:
        return set()
    found = set()
    for inner in typing.get_args(annotation):
        found |= classes_in(inner)
    if inspect.isclass(annotation) and annotation.__module__.startswith("raftnet."):
        found.add(annotation)
        space = vars(sys.modules[annotation.__module__])
        for field in getattr(annotation, "__annotations__", {}).values():
            found |= classes_in(eval(field, space) if isinstance(field, str) else field)
    return found


class Names(unittest.TestCase):
    def exported(self) -> set:
        return {getattr(raftnet.client, name) for name in raftnet.client.__all__
                if inspect.isclass(getattr(raftnet.client, name))}

    def test_what_annotations_name(self):
        exported, seen = self.exported(), set()
        for name, function in public_methods():
            for place, annotation in typing.get_type_hints(function).items():
                for wanted in classes_in(annotation):
                    seen.add(wanted.__name__)
                    self.assertIn(wanted, exported, f"{name}, {place}")
        self.assertLessEqual({"KvItem", "Condition", "Outcome", "Inspected", "Event", "Changed",
                              "MemberStatus", "Entry"}, seen)

    def test_what_docstrings_name(self):
        library, exported, seen = names_of_the_library(), self.exported(), set()
        texts = list(public_methods()) + [("Client", Client), ("Queue", Queue),
                                          ("client.py", raftnet.client.client),
                                          ("StateRefusedError", errors.StateRefusedError)]
        for name, documented in texts:
            self.assertTrue(documented.__doc__ or name.endswith("__init__"), name)
            for word in re.findall(_CLASS, documented.__doc__ or ""):
                if word in library and word not in ("Client", "Queue"):
                    seen.add(word)
                    self.assertIn(library[word], exported, f"{name}: {word}")
        self.assertLessEqual({"RefusedError", "NoAnswerError", "MalformedError", "StorageError",
                              "StateRefusedError", "Setting"}, seen)

    def test_what_comments_and_codes_name(self):
        # a RefusedError's `code`, a StateRefusedError's `status`, an entry's `kind`, an event's
        # `reason`, a condition's `kind`, a setting's value: plain numbers in the annotations
        for name in ("ErrorCode", "Status", "EntryKind", "Reason", "ConditionKind", "Overflow"):
            self.assertIn(name, raftnet.client.__all__)

    def test_all_is_there(self):
        self.assertEqual(raftnet.client.__all__, sorted(raftnet.client.__all__))
        for name in raftnet.client.__all__:
            self.assertTrue(hasattr(raftnet.client, name), name)


if __name__ == "__main__":
    unittest.main()
