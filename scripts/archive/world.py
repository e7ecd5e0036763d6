"""What the archive knows: people, ships, contracts, procedures and notices of a harbour that does not exist."""

from dataclasses import dataclass
from random import Random

FIRST = "Adela Bruno Celia Dario Edda Falk Greta Henrik Ines Jorun Karel Lena Milo Nora Oskar Petra Rasmus Silja Tomas Ulrike".split()
LAST = "Ahlgren Brandvik Castellan Dorfman Eskola Fjeld Grunwald Holmberg Isaksen Jurgens Kolstad Lindahl Marwick Nyberg Ostrand".split()
DEPARTMENTS = (
    "Pilotage",
    "Customs Desk",
    "Crane Works",
    "Cold Storage",
    "Dredging",
    "Harbour Watch",
    "Legal Office",
    "Payroll",
)
ROLES = ("inspector", "clerk", "technician", "planner", "coordinator")
SHIP_NAMES = (
    "Amber Gull,Black Heron,Cinder Rose,Dawn Runner,Ebb Tide,Fair Isle,Grey Lady,High Noon,Iron Finch,Jade Moon,Kestrel,Lone Star,"
    "Misty Cape,North Wind,Old Faithful,Pale Horse,Quick Silver,Red Lantern,Sea Thistle,Tall Pine,Ulvik,Velvet Fox,White Oak,"
    "Yellow Fin,Zephyr,Blue Marlin,Copper Bell,Deep Song,Evening Star,Far Shore,Golden Hind,Hollow Bay,Ice Flower,Jolly Otter,"
    "Kind Spirit,Long Reach,Morning Glory,Night Owl,Open Sky,Proud Mary"
).split(",")
SHIP_KINDS = ("tug", "ferry", "dredger", "survey vessel", "bulk carrier")
PARTNERS = (
    "Oberon Freight",
    "Tessera Cables",
    "Lumen Paints",
    "Quarry Bros",
    "Halcyon Foods",
    "Nimbus Textiles",
    "Orca Fuels",
)
SUBJECTS = (
    "towage",
    "storage of grain",
    "repair of cranes",
    "laundry",
    "guarding of gate 4",
    "disposal of oil",
    "cleaning of tanks",
)
TASKS = (
    "reporting a lost badge,ordering protective boots,booking the meeting barge,closing the north gate in a storm,"
    "refuelling the pilot boat,handing over a night shift,storing dangerous goods,testing the fire pumps,feeding the harbour cat,"
    "washing the crane cabins,borrowing a measuring boat,announcing a visitor,paying a berth fee,counting empty containers,"
    "calling the diver,painting a mooring post,checking a ladder,posting a letter,using the sauna,starting the ice breaker,"
    "keeping the tide log,renewing a parking permit,claiming travel costs,moving a buoy,cooking in the mess,reporting a leak,"
    "weighing a lorry,lending out radios,opening the museum,cleaning the slipway"
).split(",")
UNITS = (("hours", 4, 60), ("days", 2, 28), ("crowns", 15, 900))


@dataclass(frozen=True)
class Person:
    """`office` is what the own file says; a notice may say otherwise."""

    name: str
    number: int
    role: str
    department: str
    office: str
    phone: str
    since: int
    supervisor: str | None


@dataclass(frozen=True)
class Ship:
    name: str
    kind: str
    pier: int
    captain: str
    tonnes: int
    built: int


@dataclass(frozen=True)
class Contract:
    number: str
    partner: str
    subject: str
    crowns: int
    signed_by: str
    ends: str


@dataclass(frozen=True)
class Procedure:
    """How something is done: its form, and a limit such as `12 days`."""

    number: int
    task: str
    form: str
    limit: str
    owner: str


@dataclass(frozen=True)
class Notice:
    """What says otherwise than another document: of a person's office, or of a procedure's limit."""

    number: int
    about: Person | Procedure
    value: str


class Archive:
    """All of it, made from a seed: 64 people, 40 ships, 28 contracts, 30 procedures, 20 notices and 18 minutes."""

    def __init__(self, seed: int) -> None:
        self._rng = rng = Random(seed)
        names = [f"{first} {last}" for first in FIRST for last in LAST]
        rng.shuffle(names)
        self.nobody = names[64:84]
        heads = names[: len(DEPARTMENTS)]
        offices = [f"{block}{number}" for block in "ABCDEF" for number in range(101, 160)]
        phones = [str(number) for number in range(2000, 3000)]
        rng.shuffle(offices)
        rng.shuffle(phones)
        self._spare_offices = offices[64:]
        self.people = [self._person(i, name, heads, offices[i], phones[i]) for i, name in enumerate(names[:64])]
        captains = rng.sample(self.people[len(heads) :], len(SHIP_NAMES))
        self.ships = [
            Ship(
                name,
                rng.choice(SHIP_KINDS),
                rng.randint(1, 60),
                who.name,
                rng.randint(80, 9000),
                rng.randint(1961, 2021),
            )
            for name, who in zip(SHIP_NAMES, captains, strict=True)
        ]
        self.contracts = [self._contract(i) for i in range(28)]
        self.procedures = [self._procedure(i, task) for i, task in enumerate(TASKS)]
        moved = rng.sample(self.people, 10)
        changed = rng.sample(self.procedures, 10)
        self.notices = [
            *(Notice(i + 1, who, self._spare_offices[i]) for i, who in enumerate(moved)),
            *(Notice(i + 11, what, self._other_limit(what)) for i, what in enumerate(changed)),
        ]

    def _person(self, i: int, name: str, heads: list[str], office: str, phone: str) -> Person:
        department = DEPARTMENTS[i % len(DEPARTMENTS)]
        is_head = i < len(heads)
        role = "head" if is_head else self._rng.choice(ROLES)
        supervisor = None if is_head else heads[i % len(heads)]
        return Person(name, 100 + i, role, department, office, phone, self._rng.randint(1988, 2024), supervisor)

    def _contract(self, i: int) -> Contract:
        rng = self._rng
        ends = f"{rng.randint(2026, 2034)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
        pair = (PARTNERS[i % len(PARTNERS)], SUBJECTS[(i + i // len(PARTNERS)) % len(SUBJECTS)])
        return Contract(f"K-{700 + i}", *pair, rng.randint(20, 900) * 1000, rng.choice(self.people).name, ends)

    def _limit(self) -> str:
        unit, least, most = self._rng.choice(UNITS)
        return f"{self._rng.randint(least, most)} {unit}"

    def _other_limit(self, procedure: Procedure) -> str:
        number, unit = procedure.limit.split()
        return f"{int(number) + self._rng.randint(1, 9)} {unit}"

    def _procedure(self, i: int, task: str) -> Procedure:
        form = f"{self._rng.choice('HKMPT')}-{self._rng.randint(10, 99)}{i:02}"
        return Procedure(i + 1, task, form, self._limit(), self._rng.choice(DEPARTMENTS))
