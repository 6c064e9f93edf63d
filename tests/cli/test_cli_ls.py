import pytest

from hessdiag import nets
from hessdiag.cli import ls
from hessdiag.problem import spec
from hessdiag.problem.losses import loss


@pytest.mark.parametrize("topic", ls.TOPICS)
def test_each_topic_lists_its_names(hessdiag, topic):
    lines = hessdiag("ls", topic).out.splitlines()
    assert [line.split("  ")[0] for line in lines] == list(ls.TOPICS[topic])
    assert all(len(line.split("  ", 1)[1].strip()) > 5 for line in lines)


def test_without_a_topic_all_are_listed(hessdiag):
    out = hessdiag("ls").out
    assert all(name in out for table in ls.TOPICS.values() for name in table)


def test_losses_are_those_that_exist():
    assert set(ls.LOSSES) == set(loss.NAMES)


def test_builtins_are_those_that_exist():
    assert set(ls.TOPICS["builtins"]) == {f"builtin:{name}" for name in nets.BUILTINS | nets.TASKS}


@pytest.mark.parametrize(
    "text", [part for key in ls.SPECS for part in key.split(", ") if "[" not in part and "(" not in part]
)
def test_spec_forms_can_be_parsed(text):
    assert spec.parse(text)
