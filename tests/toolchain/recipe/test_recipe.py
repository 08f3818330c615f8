from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.core.errors import PolicyError, UsageProblem
from toolchain.recipe import Prune, Quantize, Recipe, find, parse, shipped

SHARES = st.floats(0.01, 0.99)
LAYERS = st.dictionaries(st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20), SHARES)
PRUNES = st.one_of(
    st.builds(Prune, ratio=SHARES, layers=LAYERS, epochs=st.integers(0, 50)),
    st.builds(Prune, ratio=SHARES, scope=st.sampled_from(["layer", "global"]), iterations=st.integers(1, 9)),
    st.builds(Prune, macs=st.integers(1, 10**9), importance=st.sampled_from(["l1", "taylor", "hessian"])),
    st.builds(Prune, bytes=st.integers(1, 10**9).map(float), round_to=st.integers(1, 64)),
    st.builds(Prune, method=st.just("magnitude"), ratio=SHARES),
    st.builds(Prune, method=st.just("n:m"), pattern=st.sampled_from(["2:4", "1:8"])),
)
RECIPES = st.builds(
    Recipe,
    name=st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True),
    summary=st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=60),
    steps=st.builds(
        lambda prunes, last: (*prunes, *last),
        st.lists(PRUNES, max_size=2),
        st.lists(st.builds(Quantize, scheme=st.sampled_from(["dynamic-int8", "static-int8"])), max_size=1),
    ),
)


@given(RECIPES)
def test_toml_reads_back_what_it_wrote(recipe: Recipe) -> None:
    assert parse(recipe.toml(), "written") == recipe


def test_every_shipped_recipe_has_its_files_name_and_says_what_it_is_for() -> None:
    assert {"float", "dynamic-int8", "static-int8", "static-int8-act16", "pruned-static-int8"} <= set(shipped())
    assert all(recipe.summary for recipe in shipped().values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param('name = "a"\nstep = []', "step", id="unknown key"),
        pytest.param(
            'name = "a"\n[[steps]]\nkind = "quantize"\nscheme = "int3"', "did you mean weight-int8", id="unknown scheme"
        ),
        *(
            pytest.param(f'name = "a"\n[[steps]]\nkind = "prune"\n{keys}', message, id=message)
            for keys, message in (
                ("ratio = 1", "less than 1"),
                ("ratio = 0", "greater than 0"),
                ("ratio = 0.5\nsoft = true", "'soft' cannot be true: it should be a number;"),
                ("ratio = 0.5\nepochs = 2.5", "'epochs' cannot be 2.5: it should be a whole number;"),
                ("", "it does not say how much to prune"),
                ("ratio = 0.5\nmacs = 100", "`ratio` and `macs` exclude each other"),
                ("macs = 5\nlayers = { conv1 = 0.5 }", "`layers` and `macs` exclude each other"),
                ("layers = { conv1 = 1.0 }", "layers.conv1"),
                ("bytes = 1000", "needs quotes and a unit"),
                ('method = "magnitude"\nparameters = 9', "`parameters` does not belong to `method` magnitude"),
                ('ratio = 0.5\npattern = "1:4"', "`pattern` does not belong to `method` structured"),
                ('method = "n:m"\nratio = 0.5', "n:m takes `pattern` alone"),
                ('method = "n:m"\npattern = "4:4"', "keeps every weight"),
            )
        ),
        pytest.param(
            'name = "a"\n[[steps]]\nkind="quantize"\nscheme="static-int8"\n[[steps]]\nkind="prune"\nratio=0.5',
            "last step",
            id="pruning after quantizing",
        ),
        pytest.param(
            'name = "a"\n[[steps]]\nkind="quantize"\nscheme="static-int8-act16"', "tflite", id="no ONNX kernels"
        ),
        pytest.param('name = "a', "not TOML", id="not TOML"),
        pytest.param('name = "My Recipe"', "it should be a name of a to z, 0 to 9 and -", id="name"),
        pytest.param('name = "a"\nformats = []', "it should have at least 1 item;", id="no format"),
        pytest.param("", "'name' is missing", id="empty"),
        pytest.param('name = "a"\nstps = []', "unknown key 'stps'; did you mean steps? See", id="near key"),
        pytest.param(
            'name = "a"\n[[steps]]\nkind = "qat"\nlr = nan', "step 1 (qat): 'lr' cannot be nan: it should be", id="nan"
        ),
        pytest.param('name = "a"\n[[steps]]\nkind = "foo"', 'step 1: no kind of step is "foo"; give prune', id="kind"),
        pytest.param('name = "a"\n[[steps]]\nlr = 1', "step 1: its kind is missing; give prune", id="no kind"),
        pytest.param('name = "a"\nsteps = [3]', "step 1: it should be", id="step that is no table"),
        pytest.param(
            'name = "a"\n[[steps]]\nkind = "quantize"\nschem = "x"',
            "step 1 (quantize): unknown key 'schem'; did you mean scheme?",
            id="near key of a step",
        ),
    ],
)
def test_an_impossible_recipe_is_refused_in_one_line_that_names_the_file(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse(text, "mine.toml")
    assert str(refused.value).startswith("mine.toml: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="static-int8"):
        find("static-int9")
    with pytest.raises(UsageProblem, match="no such recipe file"):
        find(str(tmp_path / "none.toml"))


def test_what_show_prints_is_a_recipe_file_that_press_takes(glyphpress, tmp_path: Path) -> None:
    shown = glyphpress("recipe", "show", "pruned-static-int8")
    assert shown.code == 0
    mine = tmp_path / "mine.toml"
    mine.write_text(shown.out.replace('name = "pruned-static-int8"', 'name = "mine"'))
    assert find(str(mine)).steps == shipped()["pruned-static-int8"].steps


def test_list_for_machines(glyphpress) -> None:
    listed = json.loads(glyphpress("recipe", "list", "--json").out)
    assert listed["schema"] == "glyphpress/recipe-list/1"
    assert [recipe["name"] for recipe in listed["recipes"]] == list(shipped())


def test_another_teacher_is_for_every_step_that_learns_from_one() -> None:
    taught = shipped()["small"].taught_by("cnn-deep")
    assert [getattr(step, "teacher", "") for step in taught.steps] == ["cnn-deep", "cnn-deep", ""]
    with pytest.raises(UsageProblem, match="static-int8 learns from a teacher"):
        shipped()["static-int8"].taught_by("cnn-deep")
