"""What errors say, and how numbers and names are put in words."""

import pickle
import traceback

import pytest

from memfeat.devices import resolve_device
from memfeat.errors import ConfigError, EncoderError, VideoError, counted, listed


def test_a_traceback_says_what_a_flag_is_in_python_and_the_message_does_not():
    with pytest.raises(ConfigError) as caught:
        resolve_device("cuda:7")
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.endswith("In Python, --device is the argument device.\n")
    assert "In Python" not in str(caught.value)
    (note,) = EncoderError("give a smaller --batch-size, or --device cpu").__notes__
    assert note == "In Python, --batch-size is the argument batch_size."
    assert not hasattr(EncoderError("x--y is no flag"), "__notes__")


@pytest.mark.parametrize("error", [EncoderError("--a"), VideoError("image", "--allow-images")])
def test_an_error_from_another_process_has_its_note_once(error):
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.__notes__) == (str(error), error.__notes__)


def test_one_thing_is_singular_and_all_other_numbers_are_not():
    assert [counted(n, "partial video") for n in (0, 1, 2)] == [
        "0 partial videos",
        "1 partial video",
        "2 partial videos",
    ]
    assert [counted(n, "entry", "entries") for n in (1, 3)] == ["1 entry", "3 entries"]


def test_names_are_listed_up_to_a_number():
    assert listed(["a", "b"]) == "a, b"
    assert listed([*"abcde"], 2) == "a, b and 3 more"
    assert listed([]) == ""
