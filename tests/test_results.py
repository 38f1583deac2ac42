"""Reading a run back: what is no finished run says what it is."""

import pytest

import ecogen_jax


def test_what_is_no_finished_run_is_not_loaded_and_says_what_it_is(tmp_path):
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    for path, message in (
        (tmp_path / "nope", "there is no folder .*nope"),
        (tmp_path, "no run folder, and above none"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            ecogen_jax.load_run(path)
    (run / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="same command again"):
        ecogen_jax.load_run(run)
    (run / "summary.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=f"a folder above some; .*{run}"):
        ecogen_jax.load_run(tmp_path)
