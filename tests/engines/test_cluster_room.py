"""Which node takes an engine of a cluster, before and after nodes have left it."""

from dataclasses import replace

from cappella.engines.ray.room import Place, Room
from cappella.placement import cluster
from cappella.placement.machine import Machine
from cappella.placement.planner import Placed, Plan

GIB = 1 << 30


def room(nodes: str, gpu: bool = True, **placed: tuple[int, tuple[int, ...]]) -> Room:
    """Room for engines of so many GiB on each of these GPUs."""
    machine = cluster.described(nodes)
    engines = {name: Placed(name, gpus, size * GIB, 0, 0, 1024, 1.0, 1024, "") for name, (size, gpus) in placed.items()}
    return Room(Plan(Machine(machine.devices, gpu=gpu), engines))


def test_an_engine_starts_where_it_was_planned_as_long_as_that_node_lives() -> None:
    found = room("a:2x24GiB,b:2x24GiB", ann=(10, (1,)), bob=(10, (2,)))
    assert found.place("ann", ["a", "b"]) == Place("a", (1,))
    assert found.place("bob", ["a", "b"]) == Place("b", (0,))


def test_an_engine_of_a_lost_node_goes_where_most_is_free_and_back_once_the_node_is_there_again() -> None:
    found = room("a:24GiB,b:2x24GiB,c:24GiB", ann=(10, (0,)), bob=(10, (1,)), cat=(12, (3,)))
    assert found.place("ann", ["b", "c"]) == Place("b", (1,))
    assert found.place("ann", ["a", "b", "c"]) == Place("a", (0,))


def test_two_engines_that_lose_their_node_do_not_both_get_the_last_room() -> None:
    found = room("a:24GiB,b:24GiB", ann=(15, (0,)), bob=(8, (0,)), cat=(5, (1,)))
    assert found.place("ann", ["b"]) == Place("b", (0,))
    assert found.place("bob", ["b"]) is None
    assert found.place("bob", ["a", "b"]) == Place("a", (0,))


def test_no_living_node_is_no_place() -> None:
    assert room("a:24GiB", ann=(15, (0,))).place("ann", []) is None


def test_a_split_engine_goes_only_where_as_many_gpus_are_on_one_node() -> None:
    found = room("a:2x24GiB,b:24GiB,c:2x24GiB,d:24GiB", ann=(15, (0, 1)))
    assert found.place("ann", ["b", "d"]) is None
    assert found.place("ann", ["b", "c", "d"]) == Place("c", (0, 1))


def test_an_engine_whose_planned_room_another_took_meanwhile_goes_elsewhere() -> None:
    found = room("a:24GiB,b:24GiB", ann=(15, (0,)), bob=(15, (1,)))
    assert found.place("bob", []) is None
    assert found.place("ann", ["b"]) is None
    assert found.place("bob", ["b"]) == Place("b", (0,))


def test_on_nodes_without_gpus_a_place_is_a_node_alone() -> None:
    on = cluster.joined({"a": memory(), "b": memory()})
    placed = {"ann": Placed("ann", (1,), GIB, 0, 0, 1024, 1.0, 1024, "")}
    assert Room(Plan(on, placed)).place("ann", ["a", "b"]) == Place("b", ())


def memory() -> Machine:
    described = cluster.described("x:8GiB").devices[0]
    return Machine([replace(described, node=None, index_there=None)], gpu=False)
