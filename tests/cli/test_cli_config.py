import pytest

MODEL = "builtin:lenet"


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
    "args",
    [["--no-config"], ["--no-config", "--config", "hessdiag.toml"], ["--config", "hessdiag.toml", "--no-config"]],
)
def test_it_can_be_ignored(hessdiag, fake, write, args):
    write("[problem]\nseed = 5\n")
    hessdiag("diag-share", MODEL, *args)
    assert fake.requests[0].seed == 0


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
    outcome = hessdiag("diag-share", *args)
    assert (fake.requests[0].model, fake.requests[0].weights) == (model, weights)
    assert ("using hessdiag.toml (model = train.py:f)" in outcome.err) is (model == "train.py:f")


def test_two_sources_of_weights_are_refused(hessdiag, fake, write):
    write("[problem]\nmodel = 'train.py:f'\n")
    assert hessdiag("diag-share", "a.pt", "--weights", "b.pt").code == 2


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
    assert hessdiag("diag-share").code == 0
    assert fake.requests[0].weights == "a.pt"


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
    path.write_text(
        path.read_text().replace("\n# ", "\n").replace("\nDefaults", "\n# Defaults").replace("\nPaths", "\n# Paths")
    )
    assert hessdiag("diag-share").code == 0, "the template with all its comments taken away"
    assert fake.requests[-1].model == "train.py:build_model"
