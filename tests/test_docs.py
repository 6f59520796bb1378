"""The texts of the API: all public things have one, and the examples in them run."""

import doctest
import importlib

import pytest

import sypy

MODULES = ["sypy", "sypy._cli", "sypy._credentials", "sypy._errors", "sypy._paths", "sypy._progress"]
PUBLIC = [name for name in sypy.__all__ if not name.startswith("__")]


def members(owner):
    """The public attributes that a class defines itself."""
    return {name: value for name, value in vars(owner).items() if not name.startswith("_")}


def texts():
    """Every text of the native module, with a name for it. doctest itself finds those of modules in Python only."""
    for name in PUBLIC:
        thing = getattr(sypy, name)
        yield name, thing.__doc__
        if isinstance(thing, type) and not issubclass(thing, BaseException):
            for member, value in sorted(members(thing).items()):
                yield f"{name}.{member}", getattr(value, "__doc__", None)


@pytest.mark.parametrize(("name", "text"), [pytest.param(name, text, id=name) for name, text in texts()])
def test_everything_public_has_a_text_whose_examples_run(name, text):
    assert text
    assert text.strip()
    run(doctest.DocTestParser().get_doctest(text, dict(vars(sypy)), name, None, 0))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_python_modules_run(name):
    for example in doctest.DocTestFinder().find(importlib.import_module(name)):
        run(example)


def run(example):
    said = []
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append).failed == 0, "".join(said)
