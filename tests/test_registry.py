import pytest

from memfeat.errors import ExitCode, UnknownNameError
from memfeat.registry import Registry, unknown_name


def shapes() -> Registry[type]:
    registry: Registry[type] = Registry("shape")
    for name in ("dot", "line", "square"):
        registry.register(name)(type(name, (), {}))
    return registry


def test_a_registered_class_is_found_under_its_name_in_order():
    assert list(shapes()) == ["dot", "line", "square"]
    assert shapes().get("line").__name__ == "line"


def test_an_unknown_name_lists_the_choices_and_the_nearest_and_is_a_usage_error():
    with pytest.raises(UnknownNameError) as caught:
        shapes().get("Sqare")
    assert "'Sqare'" in str(caught.value)
    assert "Did you mean 'square'?" in str(caught.value)
    assert "dot, line, square" in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_long_list_is_not_spelt_out():
    names = [f"name-{i}" for i in range(99)]
    message = str(unknown_name("encoder", "x9x", names))
    assert "99 names" in message
    assert "memfeat list encoders" in message
    assert "name-0, name-1" in str(unknown_name("row", "x9x", names))  # which it does not print


def test_a_name_cannot_be_taken_twice():
    with pytest.raises(ValueError, match="'dot' is registered twice"):
        shapes().register("dot")(int)
