"""The grammar: each form, each refusal, and that nothing is ever executed."""

import builtins
import contextlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hessdiag.errors import SpecError
from hessdiag.problem.spec import RESERVED, Spec, parse

IDENTIFIER = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in RESERVED and name.isidentifier() and not __import__("keyword").iskeyword(name)
)
LITERAL = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.tuples(inner), st.dictionaries(st.text(max_size=3), inner)),
    max_leaves=5,
)
ARGUMENTS = st.none() | st.dictionaries(IDENTIFIER, LITERAL, max_size=3).map(lambda d: tuple(d.items()))
DOTTED = st.lists(IDENTIFIER, min_size=1, max_size=3).map(".".join)


def written(arguments):
    return "" if arguments is None else "(" + ", ".join(f"{key}={value!r}" for key, value in arguments) + ")"


@given(st.sampled_from(["", "./", "../a b/", "/x/", "C:\\runs\\", "C:/runs/"]), IDENTIFIER, DOTTED, ARGUMENTS)
def test_scripts_round_trip(folder, stem, attribute, arguments):
    spec = parse(f"{folder}{stem}.py:{attribute}{written(arguments)}")
    assert (spec.kind, spec.source) == ("script", f"{folder}{stem}.py")
    assert (spec.attribute, spec.arguments) == (attribute, arguments)


@given(DOTTED, DOTTED, ARGUMENTS)
def test_modules_round_trip(module, attribute, arguments):
    if module.endswith(".py"):
        return
    for text in (f"{module}:{attribute}{written(arguments)}", f"py:{module}:{attribute}{written(arguments)}"):
        spec = parse(text)
        assert (spec.kind, spec.source) == ("module", module)
        assert (spec.attribute, spec.arguments) == (attribute, arguments)


@given(st.sampled_from(["./a", "a/", "a.csv", "../b (1)/x.csv", "C:\\runs\\a"]), st.none() | IDENTIFIER, ARGUMENTS)
def test_paths_with_options_round_trip(path, key, arguments):
    arguments = arguments or None
    text = path + ("" if key is None else f"#{key}") + written(arguments)
    spec = parse(text)
    assert (spec.kind, spec.source, spec.key, spec.arguments) == ("file", path, key, arguments)
    literal = path + written(arguments)
    if "#" not in literal:
        assert parse(f"file:{literal}").source == literal


@pytest.mark.parametrize("path", ["./a(1)", "./a (copy)", "./a(b==1)", "./run(lr=0.1).pt", "./run(lr=0.1)/"])
def test_parentheses_that_are_part_of_a_path(path):
    assert (parse(path).source, parse(path).arguments) == (path, None)


@given(st.sampled_from(["builtin", "timm", "torchvision", "hf"]), IDENTIFIER, ARGUMENTS)
def test_reserved_names_round_trip(kind, name, arguments):
    spec = parse(f"{kind}:{name}{written(arguments)}")
    assert (spec.kind, spec.source, spec.arguments) == (kind, name, arguments)


@given(st.text(max_size=60))
def test_any_text_gives_a_spec_or_a_spec_error(text):
    with contextlib.suppress(SpecError):
        assert isinstance(parse(text), Spec)


@pytest.mark.parametrize(
    "call",
    [
        "f(a=__import__('os').system('true'))",
        "f(a=exec('1'))",
        "f(a=[].append)",
        "f()()",
        "f[0]",
        "(lambda: 1)()",
    ],
)
def test_nothing_but_literals_is_evaluated(call, monkeypatch):
    for name in ("eval", "exec"):
        monkeypatch.setattr(builtins, name, lambda *a, **k: pytest.fail("executed"))
    with pytest.raises(SpecError):
        parse(f"x.py:{call}")


@pytest.mark.parametrize(
    ("text", "kind", "source", "key"),
    [
        ("model.pt", "file", "model.pt", None),
        ("model.pt#state_dict_ema", "file", "model.pt", "state_dict_ema"),
        ("batch.npz#images,labels", "file", "batch.npz", "images,labels"),
        (r"C:\m.pt", "file", r"C:\m.pt", None),
        (r"C:\m.pt#a.b", "file", r"C:\m.pt", "a.b"),
        ("C:/m.pt", "file", "C:/m.pt", None),
        ("a#b/c.pt", "file", "a#b/c.pt", None),
        ("./resnet50", "file", "./resnet50", None),
        ("file:resnet50", "file", "resnet50", None),
        ("file:odd:name.pt#k", "file", "odd:name.pt", "k"),
        ("timm:hf-hub:timm/x(num_classes=3)", "timm", "hf-hub:timm/x", None),
        ("py:hf:f", "module", "hf", None),
        ("m:f", "module", "m", None),
        (r"C:\x.py:f", "script", r"C:\x.py", None),
        ("dir.py/x.py:f", "script", "dir.py/x.py", None),
        ("x.py:f(p='y.py:g')", "script", "x.py", None),
        ("pkg.mod:f(p='y.py:g')", "module", "pkg.mod", None),
    ],
)
def test_forms(text, kind, source, key):
    spec = parse(text)
    assert (spec.kind, spec.source, spec.key) == (kind, source, key)


@pytest.mark.parametrize(
    ("text", "source", "revision", "keywords"),
    [
        ("hf:org/name", "org/name", None, {}),
        ("hf:org/name@refs/pr/1", "org/name", "refs/pr/1", {}),
        ("hf:org/name@v1(num_labels=3)", "org/name", "v1", {"num_labels": 3}),
        ("hf:./dir@x/y", "./dir@x/y", None, {}),
        ("hf:./dir@main", "./dir", "main", {}),
    ],
)
def test_hugging_face(text, source, revision, keywords):
    spec = parse(text)
    assert (spec.source, spec.revision, spec.keywords) == (source, revision, keywords)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no spec"),
        ("a\0b", "no spec"),
        ("resnet50", "builtin:resnet50, timm:resnet50"),
        ("mlp(width=0.5)", "builtin:mlp(width=0.5)"),
        ("vit-base", "bare word"),
        ("train.py", "did you mean train.py:setup?"),
        ("train.py:", "did you mean train.py:setup?"),
        (r"C:\train.py", "did you mean"),
        ("py:train.py", "did you mean train.py:setup?"),
        ("builtin:", "names nothing"),
        ("builtin:mlp(4)", "positional"),
        ("x.py:f(*a)", "positional"),
        ("x.py:f(**a)", "positional"),
        ("x.py:f(a=1, a=2)", "twice"),
        ("x.py:f(a=b)", "not a literal"),
        ("x.py:f(a=1", "not NAME"),
        ("x.py:f # g", "not NAME"),
        ("x.py:(f)", "not NAME"),
        ("https://host/m.pt", "downloads nothing"),
        ("foo-bar:baz", "starts with none of"),
        ("m.pt#", "empty key"),
        ("#k", "empty path"),
        ("hf:@main", "empty name"),
        ("hf:x@", "empty revision"),
        ("builtin:(width=3)", "no name"),
    ],
)
def test_refusals(text, said):
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_disk_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = [parse(text) for text in ("builtin:mlp", "train.py:f", "hf:x/y")]
    for name in ("builtin:mlp", "train.py:f", "mlp", "x"):
        (tmp_path / name).write_text("")
    assert before == [parse(text) for text in ("builtin:mlp", "train.py:f", "hf:x/y")]


def test_parsing_imports_no_torch():
    code = "import hessdiag.problem.spec, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
