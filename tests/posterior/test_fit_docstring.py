"""What `help(pyrobbb.fit)` says: all arguments, grouped, in one order."""

import inspect
import pydoc
import re

import pyrobbb

DOC = inspect.getdoc(pyrobbb.fit)
ARGUMENTS = list(inspect.signature(pyrobbb.fit).parameters)


def groups_of(doc):
    """Return the arguments in the list of groups, by the name of the group."""
    items = re.findall(r"^- ([\w ]+): ((?:`\w+`,?\s*)+)\.", doc, flags=re.MULTILINE)
    return {name: re.findall(r"`(\w+)`", text) for name, text in items}


def test_each_argument_is_in_one_group_in_the_order_of_the_signature():
    groups = groups_of(DOC)
    assert [name for names in groups.values() for name in names] == ARGUMENTS
    assert all(2 <= len(names) <= 8 for names in groups.values())


def test_the_arguments_are_described_in_the_order_of_the_groups():
    section = re.search(r"^Parameters\n-+\n(.*?)\n\n(\w+)\n-+\n", DOC, flags=re.S | re.M)[1]
    assert re.findall(r"^(\w+) : \S", section, flags=re.MULTILINE) == ARGUMENTS


def test_help_shows_the_groups_before_the_descriptions():
    text = pydoc.render_doc(pyrobbb.fit, renderer=pydoc.plaintext)
    assert text.index("- Objective: `objective`") < text.index("Parameters\n")
