import click
import pytest

from hessdiag.cli.kinds import harmless
from hessdiag.cli.main import COMMANDS, cli

MODEL = "builtin:lenet"
NAMED = ("--config", "hessdiag.toml")


@pytest.fixture
def write(tmp_path):
    def write(text, name="hessdiag.toml"):
        (tmp_path / name).write_text(text)

    return write


def test_defaults_come_from_the_file_and_the_command_line_wins(hessdiag, fake, write):
    write("[problem]\nloss = 'ce'\nseed = 5\nbatch-size = 4\n[diag-share]\nrows = 7\n")
    hessdiag("diag-share", MODEL)
    hessdiag("diag-share", MODEL, "--seed", "6", "--rows", "all")
    first, second = fake.requests
    assert (first.loss, first.seed, first.batch_size, fake.calls[0]["rows"]) == ("ce", 5, 4, 7)
    assert (second.loss, second.seed, fake.calls[1]["rows"]) == ("ce", 6, "all")


def test_a_file_in_pyproject_counts(hessdiag, fake, write):
    write("[project]\nname = 'x'\n[tool.hessdiag.problem]\nseed = 5\n", "pyproject.toml")
    hessdiag("diag-share", MODEL)
    assert fake.requests[0].seed == 5


@pytest.mark.parametrize(
    ("args", "seed"),
    [
        ((), 5),
        (("--no-config",), 0),
        (("--no-config", "--config", "named.toml"), 7),
        (("--config", "named.toml", "--no_config"), 7),
    ],
)
def test_what_was_not_named_can_be_ignored(hessdiag, fake, write, monkeypatch, args, seed):
    monkeypatch.setenv("HESSDIAG_DTYPE", "float32")
    write("[problem]\nseed = 5\nbatches = 3\n")
    write("[problem]\nseed = 7\n", "named.toml")
    hessdiag("diag-share", MODEL, *args)
    kept = (None, None) if args else (3, "float32")
    assert (fake.requests[0].seed, fake.requests[0].batches, fake.requests[0].dtype) == (seed, *kept)


@pytest.mark.parametrize(
    ("args", "model", "weights"),
    [
        ([], "train.py:f", None),
        (["w.pt"], "train.py:f", "w.pt"),
        (["other.py:g"], "other.py:g", None),
        (["builtin:lenet"], "builtin:lenet", None),
        (["--weights", "w.pt"], "train.py:f", "w.pt"),
    ],
)
def test_a_configured_model_takes_a_file_for_its_weights(hessdiag, fake, write, args, model, weights):
    write("[problem]\nmodel = 'train.py:f'\n")
    outcome = hessdiag("diag-share", *args, *NAMED)
    assert (fake.requests[0].model, fake.requests[0].weights) == (model, weights)
    assert ("using hessdiag.toml (model = train.py:f)" in outcome.err) is (model == "train.py:f")


def test_two_sources_of_weights_are_refused(hessdiag, fake, write):
    write("[problem]\nmodel = 'train.py:f'\n")
    outcome = hessdiag("diag-share", "a.pt", "--weights", "b.pt", *NAMED)
    assert outcome.code == 2
    assert "names the model train.py:f" in outcome.err


def test_paths_count_from_the_file(hessdiag, fake, write, tmp_path):
    (tmp_path / "conf").mkdir()
    write(
        "[problem]\nmodel = 'train.py:f(k=1)'\nweights = ['a.pt#ema']\ndata = 'pkg.mod:g'\nloss = 'ce'\n", "conf/c.toml"
    )
    assert hessdiag("diag-share", "--config", "conf/c.toml").code == 0
    request = fake.requests[0]
    assert (request.model, request.weights) == ("conf/train.py:f(k=1)", "conf/a.pt#ema")
    assert (request.data, request.loss) == ("pkg.mod:g", "ce")


def test_one_weights_file_may_be_a_string(hessdiag, fake, write):
    write("[problem]\nmodel = 'train.py:f'\nweights = 'a.pt'\n")
    assert hessdiag("diag-share", *NAMED).code == 0
    assert fake.requests[0].weights == "a.pt"
    assert "using hessdiag.toml (model = train.py:f, weights = a.pt)" in hessdiag("diag-share", *NAMED).err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[problem]\nsede = 1\n", "Did you mean `seed`?"),
        ("[problems]\nseed = 1\n", "Did you mean `problem`?"),
        ("[diag-share]\nrow = 1\n", "Did you mean `rows`?"),
        ("[vanishing]\ndepht = 1\n", "Did you mean `depth`?"),
        ("[problem]\ntrust_code = true\n", "trust_code cannot stand"),
        ("[diag-share]\ntrust-code = true\n", "trust_code cannot stand"),
        ("seed = 1\n", "outside of any table"),
        ("[problem\n", "not valid TOML"),
        ("[problem]\nseed = 'x'\n", "'x' is not a valid integer"),
        ("[diag-share]\nrows = -1\n", "-1 is neither"),
    ],
)
def test_mistakes_in_it_are_named(hessdiag, fake, write, text, said):
    write(text)
    outcome = hessdiag("diag-share", MODEL)
    assert (outcome.code, fake.requests) == (2, [])
    assert said in outcome.err


def test_the_written_template_is_valid_commented_and_not_overwritten(hessdiag, fake, tmp_path):
    assert hessdiag("init").code == 0
    assert hessdiag("init").code == 2
    assert hessdiag("init", "--force").code == 0
    assert hessdiag("diag-share", MODEL).code == 0
    path = tmp_path / "hessdiag.toml"
    head, mark, rest = path.read_text().partition("[problem]")
    path.write_text(head + mark + rest.replace("\n# ", "\n"))
    assert hessdiag("diag-share", *NAMED).code == 0, "the template with all its comments taken away"
    assert fake.requests[-1].model == "train.py:build_model"
    left = [line.split()[1] for line in rest.splitlines() if line.startswith("# ") and "# with --config" in line]
    assert f"its {', '.join(left)} are left out" in hessdiag("diag-share", MODEL).err, (
        "what the template says of itself"
    )


FOUND = """
[problem]
seed = 5
loss = "ce"
train_mode = true
device = "cpu"
dtype = "float32"
batches = "all"
[diag-share]
rows = 7
format = "json"
"""
HOSTILE = {
    "model": "'evil.py:f'",
    "weights": "'w.pt'",
    "data": "'evil.py:data'",
    "objective": "'evil.py:f'",
    "loss": "'evil.py:loss'",
    "layers": "'*'",
    "device": "'../x'",
}
WRITES = {
    "output": "'../victim.json'",
    "force": "true",
    "baseline": "'x.json'",
    "allow_inexact": "true",
    "exit_zero": "true",
}


def test_a_file_that_is_found_sets_numbers_and_choices(hessdiag, fake, write):
    write(FOUND)
    outcome = hessdiag("diag-share", MODEL)
    request = fake.requests[0]
    assert (request.seed, request.loss, request.train_mode, request.batches) == (5, "ce", True, -1)
    assert (request.device, request.dtype, fake.calls[0]["rows"]) == ("cpu", "float32", 7)
    assert (outcome.code, outcome.out[0], "left out" in outcome.err) == (0, "{", False)


@pytest.mark.parametrize("name", ["hessdiag.toml", "pyproject.toml", "link"])
def test_a_file_that_is_found_names_no_code_and_no_file(hessdiag, fake, write, tmp_path, name):
    problem = "\n".join(f"{key} = {value}" for key, value in HOSTILE.items())
    own = "\n".join(f"{key} = {value}" for key, value in WRITES.items())
    prefix = "tool.hessdiag." if name == "pyproject.toml" else ""
    text = f"[{prefix}problem]\nseed = 5\n{problem}\n[{prefix}diag-share]\nrows = 7\n{own}\n"
    write(text, "elsewhere.toml" if name == "link" else name)
    if name == "link":
        (tmp_path / "hessdiag.toml").symlink_to("elsewhere.toml")
    victim = tmp_path.parent / "victim.json"
    victim.write_text("kept")
    outcome = hessdiag("diag-share", MODEL)
    request = fake.requests[0]
    assert (outcome.code, victim.read_text()) == (0, "kept")
    assert (request.model, request.weights, request.data, request.objective) == (MODEL, None, None, None)
    assert (request.loss, request.layers, request.device) == (None, None, "auto")
    assert (request.seed, fake.calls[0]["rows"]) == (5, 7), "the rest counts"
    assert f"its {', '.join((*HOSTILE, *WRITES))} are left out" in outcome.err
    assert outcome.err.count("left out") == 1, "in one line"
    named = "hessdiag.toml" if name == "link" else name
    assert f"--config {named} takes all of it" in outcome.err


def test_a_file_that_is_named_may_say_where_output_goes(hessdiag, fake, write, tmp_path):
    write("[diag-share]\noutput = 'r.json'\n")
    assert hessdiag("diag-share", MODEL).code == 0
    assert not (tmp_path / "r.json").exists()
    assert hessdiag("diag-share", MODEL, *NAMED).code == 0
    assert (tmp_path / "r.json").exists()


def test_what_a_found_file_may_set_is_a_short_list():
    """A new option is refused by default; whoever adds a number or a choice adds it here."""
    group = click.Context(cli)
    allowed = {
        parameter.name
        for name in COMMANDS
        for parameter in (cli.get_command(group, name) or pytest.fail(name)).params
        if isinstance(parameter, click.Option) and harmless(parameter.type, 1)
    }
    numbers = {"seed", "seeds", "hessian_seeds", "batches", "batch_size", "batch", "rows", "depth", "width", "length"}
    numbers |= {"lowest", "highest", "tol", "max_basis", "max_products", "block", "probes", "steps", "scale", "lr"}
    numbers |= {"budget", "time_budget", "threshold", "check", "widths", "depths", "tolerance"}
    numbers |= {"damping"}
    choices = {"dtype", "form", "color", "init", "distribution", "activation", "solve", "operator"}
    choices |= {"norms", "multipliers", "preset"}
    switches = {"train_mode", "strict", "as_json", "no_progress", "per_layer", "attempt", "landscape", "shard"}
    switches |= {"by_step"}
    assert allowed <= numbers | choices | switches, allowed - numbers - choices - switches
    assert {"force", "trust_code", "file", "save", "resume", "data", "weights", "fail_if"}.isdisjoint(allowed)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = " + "[" * 5000, "nested too deep"),
        ("[problem]\nseed = " + "9" * 5000, "not valid TOML"),
        ("#" * 1_000_001, "larger than any configuration"),
        ("[problem]\nseed = [1]", "takes one value, not [1]"),
        ("[problem]\ndtype = 1979-05-27", "is not one of"),
    ],
)
def test_odd_files_end_in_one_line(hessdiag, fake, write, text, said):
    write(text)
    outcome = hessdiag("diag-share", MODEL)
    assert (outcome.code, fake.requests) == (2, [])
    assert said in outcome.err


def test_a_configuration_is_a_file(hessdiag):
    outcome = hessdiag("diag-share", MODEL, "--config", "/dev/full")
    assert outcome.code == 2
    assert "is no file" in outcome.err
    assert "internal error" not in outcome.err


@pytest.mark.parametrize(("name", "said"), [("/\ud800", r"a name holds '\ud800'"), ("/a\0b", "a name holds a NUL")])
def test_names_that_no_file_can_have(hessdiag, name, said):
    outcome = hessdiag("report", "--config", name, "x.json")
    assert outcome.code == 2
    assert said in outcome.err
    assert len(outcome.err.splitlines()) == 1
