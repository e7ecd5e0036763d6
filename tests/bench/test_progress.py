"""What a bench says of how far it is."""

from cappella.bench.progress import Progress


def test_a_bench_says_which_batch_it_is_and_what_is_left_once_each_system_has_had_a_turn() -> None:
    said: list[str] = []
    now_s = 0.0
    progress = Progress("1 of 2: 4 at once", ["slow", "fast"], 3, said.append, lambda: now_s)
    progress.warms_up("slow")
    for _ in range(2):
        for system, takes_s in (("slow", 40.0), ("fast", 10.0)):
            with progress.batch(system):
                now_s += takes_s
    assert said == [
        "1 of 2: 4 at once: slow warms up",
        "1 of 2: 4 at once: round 1 of 3, slow",
        "1 of 2: 4 at once: round 1 of 3, fast",
        "1 of 2: 4 at once: round 2 of 3, slow; about 2 min left",
        "1 of 2: 4 at once: round 2 of 3, fast; about a minute left",
    ]
