"""The cache of decoded blocks: each made once, dropped in time, whatever the threads do."""

import threading
import time

import numpy as np
import pytest

from eocausal.ingest.blocks import Block, BlockCache, units_of

WHOLE = (0, 0, 8, 8)


def block(value=0, size=8) -> Block:
    return Block(np.full((1, size, size), value, dtype="uint8"), None)


def uses(*rows) -> np.ndarray:
    """Class, row, column and batch of uses of whole units."""
    return np.array([(*row, *WHOLE) for row in rows], dtype=np.int64).reshape(-1, 8)


def test_a_block_is_made_once_and_dropped_after_its_last_use():
    cache = BlockCache(10**6, uses((0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 2)))
    made = []

    def make():
        made.append(1)
        return block()

    for batch in range(3):
        for _ in range(2):
            cache.get((0, 0, 0), 5, WHOLE, make)
        cache.done(batch, [(0, 0, 0)])
    assert len(made) == 1
    cache.get((0, 0, 0), 5, WHOLE, make)
    assert len(made) == 2


def test_what_is_needed_last_is_dropped_first():
    """Room for two of three blocks: the one whose next use is farthest is made again."""
    cache = BlockCache(2 * 64, uses((0, 0, 0, 1), (0, 0, 1, 9), (0, 0, 2, 2)))
    made = []

    def ask(col):
        cache.get((0, 0, col), 0, WHOLE, lambda: made.append(col) or block(col))

    for col in (0, 1, 2):
        ask(col)
    ask(0)
    ask(2)
    assert made == [0, 1, 2]
    ask(1)
    assert made == [0, 1, 2, 1]


@pytest.mark.parametrize("budget", [0, 64, 200, 10**6])
def test_no_order_of_threads_gives_a_wrong_block(budget):
    """Eight threads, few units, hardly any memory: every answer is the block asked for."""
    rng = np.random.default_rng(0)
    plan = [(0, 0, int(c), b) for b in range(200) for c in rng.choice(6, 2, replace=False)]
    cache = BlockCache(budget, uses(*plan))
    own = {}
    for _, _, col, batch in plan:
        own.setdefault(batch, []).append(col)
    queue, lock, wrong = iter(range(200)), threading.Lock(), []

    def work():
        while True:
            with lock:
                batch = next(queue, None)
            if batch is None:
                return
            for col in own[batch]:
                for asset in (0, 1):
                    key = (0, 0, col)
                    found = cache.get(key, asset, WHOLE, lambda c=col, a=asset: block(10 * a + c))
                    if not (found.values == 10 * asset + col).all():
                        wrong.append((batch, col))
                    cache.release(found, key, asset, batch)
            cache.done(batch, [(0, 0, c) for c in own[batch]])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(t.is_alive() for t in threads)
    assert wrong == []


def test_threads_that_want_one_block_wait_for_one_decoding():
    cache = BlockCache(10**6, uses(*((0, 0, 0, b) for b in range(4))))
    made = []

    def slow():
        made.append(1)
        time.sleep(0.1)
        return block(3)

    found = []
    threads = [
        threading.Thread(target=lambda: found.append(cache.get((0, 0, 0), 0, WHOLE, slow)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(made) == 1
    assert len(found) == 4


def test_a_failure_reaches_all_who_wait_and_is_tried_again():
    cache = BlockCache(10**6, uses((0, 0, 0, 0), (0, 0, 0, 1)))

    def fail():
        time.sleep(0.05)
        raise OSError("the disk is gone")

    seen = []

    def ask():
        try:
            cache.get((0, 0, 0), 0, WHOLE, fail)
        except OSError as error:
            seen.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert seen == ["the disk is gone"] * 3
    assert (cache.get((0, 0, 0), 0, WHOLE, lambda: block(4)).values == 4).all()


def test_a_block_is_cut_to_what_is_still_needed_and_made_anew_for_more():
    edge = np.array([(0, 0, 0, 0, *WHOLE), (0, 0, 0, 1, 6, 0, 8, 8)], dtype=np.int64)
    cache = BlockCache(10**6, edge)
    values = np.arange(64, dtype="uint8").reshape(1, 8, 8)
    made = []

    def make():
        made.append(1)
        return Block(values.copy(), None)

    cache.release(cache.get((0, 0, 0), 0, WHOLE, make), (0, 0, 0), 0, 0)
    cache.done(0, [(0, 0, 0)])
    part = cache.get((0, 0, 0), 0, (6, 0, 8, 8), make)
    row, col = part.corner
    np.testing.assert_array_equal(part.values[:, 6 - row :, : 8 - col], values[:, 6:])
    assert len(made) == 1
    whole = cache.get((0, 0, 0), 0, WHOLE, make)
    np.testing.assert_array_equal(whole.values, values)
    assert len(made) == 2


def test_units_under_boxes():
    grid = np.array([0, 0, 1])
    box = np.array([[0, 0, 10, 10], [9, 9, 11, 21], [0, 5, 1, 6]])
    which, key = units_of(grid, box, np.array([[10, 10], [3, 7]]))
    found = sorted((int(w), *map(int, k)) for w, k in zip(which, key, strict=True))
    expected = [(0, 0, 0, 0), (2, 1, 1, 0)]
    expected += [(1, 0, r, c) for r in (0, 1, 2) for c in (0, 1)]
    assert found == sorted(expected)
