"""The promises that hold for the whole library: key first, nothing reduced, light to import."""

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vae_jax
from vae_jax import checkpoint

PACKAGE = Path(vae_jax.__file__).parent
# Every file by its dotted name, "distributions.normal"; the programs of vae_jax/run stand above.
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0] != "run"
}
PUBLIC = {name: getattr(vae_jax, name) for name in vae_jax.__all__}
FUNCTIONS = {
    name: value for name, value in PUBLIC.items() if callable(value) and not inspect.isclass(value)
}
BATCH, LATENT_DIM, NUM_PIXELS = 4, 2, 3


def room_of(module):
    """A package is one room."""
    return module.partition(".")[0]


def calls_and_imports(path):
    """The dotted names that a module calls, and the modules that it imports."""
    calls, imports = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            calls.add(ast.unparse(node.func))
        elif isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imports.update(
                f"vae_jax.{alias.name}" if node.module == "vae_jax" else node.module
                for alias in node.names
            )
    return calls, imports


# Keys


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_draws_takes_its_key_first(name):
    parameters = list(inspect.signature(FUNCTIONS[name]).parameters)
    assert "key" not in parameters[1:]
    assert not {"rng", "rngs", "seed", "random_state"} & set(parameters)


@pytest.mark.parametrize("module", MODULES)
def test_no_key_is_made_inside_the_library(module):
    calls, imports = calls_and_imports(MODULES[module])
    made = {call for call in calls if call.split(".")[-1] in {"key", "PRNGKey", "wrap_key_data"}}
    assert not made
    assert not {"random", "secrets", "numpy.random"} & imports
    assert not any("np.random" in call for call in calls)


STANDARD = vae_jax.Normal(jnp.zeros(LATENT_DIM), 1.0)
MODEL = vae_jax.VAE(
    lambda key, x, label=None: None,
    lambda params, x, label=None: vae_jax.Normal(x[..., :LATENT_DIM], 1.0),
    lambda params, label=None: STANDARD,
    lambda params, z, label=None: vae_jax.Normal(jnp.repeat(z[..., :1], NUM_PIXELS, -1), 1.0),
)


def decode(z):
    return MODEL.decode(None, z)


DRAWS = {
    "sample": lambda key: vae_jax.sample(key, STANDARD),
    "sample_scored": lambda key: vae_jax.sample_scored(key, STANDARD)[0],
    "autoencode": lambda key: vae_jax.autoencode(
        key, jnp.zeros(NUM_PIXELS), lambda x: MODEL.encode(None, x), STANDARD, decode
    ),
    "draw": lambda key: vae_jax.draw(key, STANDARD, STANDARD, decode),
    "generate": lambda key: vae_jax.generate(key, MODEL, None),
    "log_likelihood": lambda key: vae_jax.log_likelihood(
        key, jnp.zeros(NUM_PIXELS), STANDARD, STANDARD, decode, num_samples=2
    ),
    "annealed_log_likelihood": lambda key: vae_jax.annealed_log_likelihood(
        key, jnp.zeros(NUM_PIXELS), STANDARD, STANDARD, decode, num_chains=2, num_temperatures=2
    ),
    "bidirectional": lambda key: vae_jax.bidirectional(
        key,
        jnp.zeros(NUM_PIXELS),
        jnp.zeros(LATENT_DIM),
        STANDARD,
        STANDARD,
        decode,
        num_chains=2,
        num_temperatures=2,
    ),
    "evaluate": lambda key: (
        vae_jax.evaluate(
            key, MODEL, None, np.zeros((2, NUM_PIXELS), np.float32), num_samples=2
        ).estimate
    ),
    "impute": lambda key: vae_jax.impute(
        key, MODEL, None, np.zeros((2, NUM_PIXELS), np.float32), num_samples=2
    ),
    "sliced_wasserstein": lambda key: vae_jax.sliced_wasserstein(
        key, jnp.zeros((2, LATENT_DIM)), jnp.ones((2, LATENT_DIM))
    ),
    "binarize": lambda key: vae_jax.binarize(key, jnp.zeros(3, jnp.uint8)),
    "dequantize": lambda key: vae_jax.dequantize(key, jnp.zeros(3, jnp.uint8)),
    "shuffle": lambda key: vae_jax.shuffle(key, 0, num_examples=3, batch_size=1),
    "init_state": lambda key: vae_jax.init_state(key, {"w": jnp.zeros(2)}, optax.sgd(0.1)),
}


def test_every_function_with_a_key_is_in_the_table():
    with_key = {n for n, f in FUNCTIONS.items() if "key" in inspect.signature(f).parameters}
    assert with_key == set(DRAWS)


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("key", [np.zeros(2, np.uint32), 0], ids=["legacy", "seed"])
def test_a_key_that_is_not_typed(name, key):
    with pytest.raises(TypeError, match=r"not a typed key: make it with jax\.random\.key\(seed\)"):
        DRAWS[name](key)
    if isinstance(key, np.ndarray):
        with pytest.raises(TypeError, match=r"not a typed key"):
            jax.jit(DRAWS[name])(key)


@pytest.mark.parametrize("name", DRAWS)
def test_the_same_key_draws_the_same(name):
    results = [jax.tree.leaves(DRAWS[name](jax.random.key(0))) for _ in range(2)]
    for a, b in zip(*results, strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)


# Per example


def per_example(x):
    """Every function that gives a figure for each example, of a batch or of one."""
    posterior = vae_jax.Normal(x[..., :LATENT_DIM], jnp.exp(x[..., 1:]))
    z = posterior.mean + posterior.scale
    draws = jnp.stack([z, posterior.mean])
    return {
        "log_prob": vae_jax.log_prob(posterior, z),
        "kl_divergence": vae_jax.kl_divergence(posterior, STANDARD),
        "elbo": tuple(vae_jax.elbo(x, z, posterior, STANDARD, decode(z))),
        "iwae": tuple(vae_jax.iwae(x, draws, posterior, STANDARD, decode(draws))),
        "kl_per_dimension": vae_jax.kl_per_dimension(posterior, STANDARD).sum(-1),
        "reconstruct": vae_jax.reconstruct(MODEL, None, x).log_prob(x),
    }


def test_nothing_is_reduced_over_the_batch():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, NUM_PIXELS)), jnp.float32)
    together = jax.jit(per_example)(x)
    one_by_one = [jax.jit(per_example)(one) for one in x]
    assert {a.shape for a in jax.tree.leaves(together)} == {(BATCH,)}
    expected = jax.tree.map(lambda *rows: np.stack(rows), *one_by_one)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), together, expected)
    posterior = vae_jax.Normal(x[:, :LATENT_DIM], 1.0)
    estimate = vae_jax.log_likelihood(
        jax.random.key(0), x, posterior, STANDARD, decode, num_samples=2
    )
    assert {a.shape for a in estimate} == {(BATCH,)}


# Imports


def loaded_by(statement):
    """The packages that a new Python has after a statement."""
    program = f"import sys; {statement}; print(*{{n.partition('.')[0] for n in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stdout.split())


HEAVY = {"tensorflow", "tensorflow_datasets", "orbax", "matplotlib", "tyro", "tqdm", "sklearn"}
FOREIGN = {"distrax", "numpyro", "tensorflow_probability", "chex", "torch"}


def test_importing_the_library_loads_nothing_else():
    assert not loaded_by("import vae_jax") & ({"jax", "numpy", "flax", "optax"} | HEAVY | FOREIGN)


@pytest.mark.parametrize(
    ("name", "brings"),
    [
        ("elbo", set()),
        ("log_likelihood", set()),
        ("networks", {"flax"}),
        ("make_train_step", {"optax"}),
    ],
)
def test_a_name_loads_what_it_needs_when_it_is_used(name, brings):
    loaded = loaded_by(f"import vae_jax; vae_jax.{name}")
    assert {"jax", *brings} <= loaded
    assert not loaded & (({"flax", "optax"} - brings) | HEAVY | FOREIGN)


@pytest.mark.parametrize(
    ("package", "module"), [("flax", "networks"), ("optax", "train"), ("orbax", "checkpoint")]
)
def test_each_framework_has_one_room(package, module):
    users = {
        room_of(name)
        for name, path in MODULES.items()
        if any(i.partition(".")[0] == package for i in calls_and_imports(path)[1])
    }
    assert users == {module}


FLOORS = [
    {"distributions"},
    {"_checksum", "_compiler", "bounds", "networks", "penalties", "pixels", "quantization"},
    {"gradients", "model"},
    {"train", "evaluation", "checkpoint", "hierarchy", "sequence"},
    {"loss"},
    {"__init__"},
    {"run"},
]


def test_modules_import_only_from_floors_below():
    floor_of = {name: i for i, floor in enumerate(FLOORS) for name in floor}
    assert set(floor_of) == {room_of(name) for name in MODULES} | {"run"}
    for name, path in MODULES.items():
        _, imports = calls_and_imports(path)
        room = room_of(name)
        others = {i.split(".")[1] for i in imports if i.startswith("vae_jax.")} - {room}
        assert all(floor_of[other] < floor_of[room] for other in others), (name, others)


ENGINE_FLOORS = [
    {"baseline", "errors", "keys", "overwritten", "survival", "together"},
    {"extras", "options", "plan", "processes", "schedule"},
    {"count_options", "published", "sequence_options", "table_options"},
    {"kinds"},
    {"callbacks", "command", "data", "devices", "folder", "latents", "objective", "pixels"},
    {"buckets", "card", "cautions", "output"},
    {"figures", "hub", "model"},
    {"comparison", "defaults", "given", "identity"},
    {"measure", "restore", "sampler", "saver", "scores"},
    {"holes", "job", "probe", "programs", "several", "training"},
    {"illnesses"},
    {"diagnosis"},
    {"loaded", "selection"},
    {"classifier"},
    {"conditional"},
    {"pictures"},
    {"generated", "images", "rows"},
    {"examples"},
    {"cells", "learn", "sequences", "tabular"},
    {"exported", "loaded_examples"},
    {"explorer"},
    {"commands"},
    {"main"},
    {"__init__"},
]


def test_the_engine_imports_only_from_floors_below():
    floor_of = {name: i for i, floor in enumerate(ENGINE_FLOORS) for name in floor}
    rooms = {path.stem for path in (PACKAGE / "run").iterdir() if path.name != "__pycache__"}
    assert set(floor_of) == rooms
    for path in (PACKAGE / "run").rglob("*.py"):
        room = path.relative_to(PACKAGE / "run").with_suffix("").parts[0]
        tree = ast.walk(ast.parse(path.read_text()))
        others = set()
        for node in tree:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vae_jax.run"):
                inner = node.module.split(".")[2:]
                others |= {inner[0]} if inner else {alias.name for alias in node.names}
        assert all(floor_of[other] < floor_of[room] for other in others - {room}), (room, others)


# Documentation


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented_with_an_example(name):
    docstring = inspect.getdoc(PUBLIC[name])
    assert docstring != inspect.getdoc(tuple)
    if name != "networks":
        assert doctest.DocTestParser().get_examples(docstring), "no doctest"


def test_the_front_door_lists_what_it_opens():
    assert sorted(vae_jax._ROOM_OF.keys() | {"networks"}) == sorted(vae_jax.__all__)
    assert set(vae_jax.__all__) <= set(dir(vae_jax))
    for name, room in vae_jax._ROOM_OF.items():
        assert name in importlib.import_module(f"vae_jax.{room}").__all__
    with pytest.raises(AttributeError, match="has no attribute 'elbow'"):
        vae_jax.elbow  # noqa: B018
    for name in checkpoint.__all__:
        assert inspect.getdoc(getattr(checkpoint, name))
