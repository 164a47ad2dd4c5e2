import threading

from filelock import FileLock

from transfer_learning.utilities.locks import waiting_lock


def test_a_process_that_waits_for_a_lock_says_for_what_and_since_when(tmp_path, caplog):
    other = FileLock(tmp_path / "a.lock", thread_local=False)
    other.acquire()
    threading.Timer(2.5, other.release).start()
    with caplog.at_level("INFO"), waiting_lock(tmp_path / "a.lock", "computes the same rows"):
        assert not other.is_locked
    (said,) = caplog.messages
    assert said.startswith(f"{tmp_path}/a.lock: waiting since ") and said.endswith(
        "process, which computes the same rows"
    )


def test_a_free_lock_is_taken_without_a_word_and_released(tmp_path, caplog):
    for _ in range(2):
        with caplog.at_level("INFO"), waiting_lock(tmp_path / "a.lock", "does something"):
            pass
    assert not caplog.messages
