"""Training of any loss over any data, from the first epoch to the last, whatever ends it between.

`fit` is the whole of it for a program of one's own; the programs of this package make their state
on many hosts at once and call `train`.
"""

import contextlib
import math
import operator
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import vae_jax
from vae_jax.distributions._pytree import check_key
from vae_jax.run import folder
from vae_jax.run.callbacks import Callback, ProgressBar
from vae_jax.run.data import stream
from vae_jax.run.errors import Diverged, Interrupted
from vae_jax.run.identity import check_lengths, made_of
from vae_jax.run.plan import Plan, Progress, Row
from vae_jax.run.saver import Saver
from vae_jax.run.survival import StopRequest
from vae_jax.run.together import Replica

# A call makes as many steps as take about so long: a stop, or a checkpoint, waits for its end.
_CALL_SECONDS = 1.0

# Of runs in threads the next finds in the compilation cache what the first has put there.
_COMPILING = threading.Lock()

Validate = Callable[[Any], Mapping[str, Any]]
"""params, whole and on one device -> figures of the validation set, higher being better."""


class Fitted(NamedTuple):
    """What training leaves.

    Attributes:
      params: those that are judged: of the best epoch where the plan keeps it, else the moving
        average where there is one, else the last; whole, on one device.
      state: after the last step.
      rows: a dict of figures for each epoch.
      compile_seconds: of the run, all its processes together, as the next.
      seconds_before: of the processes before this one, up to their last checkpoints.
      row: of the epoch that the parameters are of; None where none has ended.
      ended_by: plan, its last step; max_minutes; or the class of the callback that ended it.
    """

    params: Any
    state: vae_jax.TrainState
    rows: list[Row]
    compile_seconds: float
    seconds_before: float
    row: Row | None
    ended_by: str


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a run is made of, built once.

    Attributes:
      loss: (params, key, batch) -> (scalar to minimise, pytree of arrays to report).
      optimizer: any optax transformation.
      data: a pytree of arrays [N, ...], or of what is read like them; see `stream.stream`.
      sharding: of the state, from `vae_jax.state_sharding`.
      plan: how long, and what is kept.
      validate: called after each epoch; see `Validate`.
      config: JSON values, stored in each checkpoint.
      continued_by: what goes on with the run, for messages.
      start: when this process began with it, by time.perf_counter.
      widths: of sequences; see `stream.in_buckets`.
      stop: whether the process is asked to stop, where others train beside this one; its own
        when not given.
      replica: of those whose steps are one program; their data are alike, and not streamed.
    """

    loss: Callable[..., Any]
    optimizer: optax.GradientTransformation
    data: Any
    sharding: vae_jax.TrainState
    plan: Plan
    validate: Validate | None
    config: Mapping[str, Any]
    continued_by: str
    start: float
    widths: np.ndarray | None = None
    stop: StopRequest | None = None
    replica: Replica | None = None

    @property
    def mesh(self) -> Mesh:
        step: Any = self.sharding.step  # a sharding in an array's place
        mesh: Mesh = step.mesh
        return mesh

    @property
    def num_examples(self) -> int:
        return len(jax.tree.leaves(self.data)[0])

    def progress(self) -> Progress:
        """That of a run which has not begun."""
        per_epoch = self.num_examples // self.plan.batch_size
        num_steps = self.plan.steps or (self.plan.epochs or 0) * per_epoch
        return Progress(num_steps, per_epoch, self.plan.batch_size)

    def pieces(self, state: vae_jax.TrainState, progress: Progress) -> Generator[stream.Piece]:
        """The data from the state's step on, in the order of its key."""
        # The same key on this process's device alone.
        words: Any = np.asarray(jax.random.key_data(state.key))
        key = jax.random.wrap_key_data(words, impl=jax.random.key_impl(state.key))
        parts = () if self.plan.accumulate == 1 else (self.plan.accumulate,)

        def order_of(epoch: int) -> np.ndarray:
            order = vae_jax.shuffle(
                key, epoch, num_examples=self.num_examples, batch_size=self.plan.batch_size
            )
            order = np.asarray(order)
            if self.widths is not None:
                order = stream.by_width(order, self.widths)
            return order.reshape(len(order), *parts, -1)

        epochs = math.ceil(progress.num_steps / progress.steps_per_epoch)
        where = (order_of, self.mesh, progress.step, epochs)
        if self.widths is not None:
            return stream.in_buckets(self.data, self.widths, *where)
        if self.plan.stream:
            return stream.stream(self.data, *where, num_workers=self.plan.num_workers)
        if self.replica is None:
            return stream.resident(self.data, *where)
        data = self.replica.together.shared(lambda: jax.device_put(self.data))
        return stream.resident(data, *where)

    def compile(self, state: vae_jax.TrainState, piece: stream.Piece) -> Callable[..., Any]:
        """The program that takes steps of a piece."""
        train_epoch: Any = vae_jax.make_train_epoch(
            self.loss,
            self.optimizer,
            average_decay=self.plan.average_decay,
            accumulate=self.plan.accumulate,
            sharding=None if self.replica else self.sharding,
        )
        if self.replica is not None:
            return self.replica.program(train_epoch, self.sharding)
        args = (state, piece.dataset, piece.order, np.int32(0), np.int32(1))
        with _COMPILING:
            compiled: Callable[..., Any] = train_epoch.lower(*args).compile()
        return compiled


def fit(
    key: jax.Array,
    loss: Callable[..., Any],
    params: Any,
    optimizer: optax.GradientTransformation,
    data: Any,
    plan: Plan,
    *,
    validate: Validate | None = None,
    callbacks: Sequence[Callback] = (),
    widths: np.ndarray | None = None,
) -> Fitted:
    """Trains any loss over any data, with progress, checkpoints and a resume that changes no bit.

    Args:
      key: typed; the order of the data and all noise come from it.
      loss: (params, key, batch) -> (scalar to minimise, pytree of arrays to report), such as
        `vae_jax.make_loss` gives. A batch is the data at the batch's rows.
      params: any pytree of arrays, of any framework. Copied: the caller's stay as they are.
      optimizer: any optax transformation, those that want `value`, `grad` or `value_fn` too.
      data: a pytree of arrays [N, ...], or of sources that have an array's shape and dtype and give
        source[rows].
      plan: how long, in what batches, on which devices, and what is kept.
      validate: params -> figures by name, after each epoch; in the rows they are validation_NAME.
      callbacks: told of the start, of each call's steps and of each epoch, which they may end the
        training at. A `ProgressBar` is put before them, unless one is among them.
      widths: of sequences, a `Batch` with images [N, T, ...], what each may be cut to, [N]: batches
        are of like widths, cut to the widest. Each width is a program to compile: have few.

    Returns:
      A `Fitted`. Run again with the same arguments and `plan.resume`, it goes on where it was
      ended, by whatever, to the numbers of the unbroken run.

    Raises:
      TypeError: the key is not typed, or there are widths and the data are no `Batch`.
      ValueError: the data's arrays differ in length, a batch has more examples than they, or what
        the plan keeps the best of is not measured.
      Diverged: a loss was not finite, or a callback says so.
      RunError: the folder holds another run, or another process is at it.
      UsageError: it holds other files, or a run that has made more steps than it is asked for.
      CheckpointError: its checkpoints are of another model or optimizer, or none can be read.
      Interrupted: SIGINT or SIGTERM came while the plan has a folder; the state is saved.
    """
    start = time.perf_counter()
    check_key(key)
    made = data if widths is None else (data, widths)
    check_lengths(made, plan.batch_size)
    if widths is not None and not isinstance(data, vae_jax.Batch):
        raise TypeError(f"widths are of a vae_jax.Batch of sequences, not of {type(data).__name__}")
    if (plan.keep_best or "").startswith("validation_") and validate is None:
        raise ValueError(f"keep_best is {plan.keep_best!r} but there is no validate to measure it")
    # Anew, with axes that the compiler lays arrays out over: a plain jax.make_mesh has others.
    mesh = (
        Mesh(np.array(jax.devices()[:1]), ("data",))
        if plan.mesh is None
        else Mesh(plan.mesh.devices, plan.mesh.axis_names)
    )

    def fresh(words: Any, params: Any) -> vae_jax.TrainState:
        # The words of a key: a typed key cannot be given to many processes.
        average = plan.average_decay > 0
        key_of_run = jax.random.wrap_key_data(words, impl=jax.random.key_impl(key))
        return vae_jax.init_state(key_of_run, params, optimizer, average=average)

    words = np.asarray(jax.random.key_data(key))
    sharding = vae_jax.state_sharding(
        jax.eval_shape(fresh, words, params), mesh, shard_parameters=plan.shard_parameters
    )
    # Moved first: they may be on other devices, as those of another run are.
    params = jax.device_put(params, sharding.params)
    state = jax.jit(fresh, out_shardings=sharding)(words, params)
    config = {}
    if plan.folder is not None and jax.process_index() == 0:
        shared = made_of(plan, words, made)
        config = {"digest": shared["data"]}
        folder.open_for_fit(plan.folder, shared, resume=plan.resume)
    setup = Setup(
        loss=loss,
        optimizer=optimizer,
        data=data,
        sharding=sharding,
        plan=plan,
        validate=validate,
        config=config,
        continued_by="the same call, with resume=True in its plan",
        start=start,
        widths=widths,
    )
    with contextlib.ExitStack() as stack:
        if plan.folder is not None:
            stack.callback(folder.unlock, plan.folder)
        if not any(isinstance(callback, ProgressBar) for callback in callbacks):
            callbacks = [ProgressBar(disable=jax.process_index() > 0), *callbacks]
        return train(setup, state, callbacks)


def train(setup: Setup, state: vae_jax.TrainState, callbacks: Sequence[Callback]) -> Fitted:
    """Trains a state, or what its folder has of it, to the end of the plan.

    Args:
      setup: what the run is made of.
      state: a fresh one; where the plan resumes, the newest checkpoint's values replace its own.
      callbacks: in every process; of several, the first process's alone should print.

    Raises:
      As `fit`.
    """
    plan = setup.plan
    with contextlib.ExitStack() as stack:
        for callback in callbacks:
            if isinstance(callback, ProgressBar):
                stack.callback(callback.close)
        saver = stack.enter_context(Saver(plan, setup.config))
        state, progress = saver.begin(state, setup.progress())
        before = progress.total_seconds
        asked = _who(callbacks, [callback.start(progress) for callback in callbacks])
        late = "max_minutes" if before >= 60 * plan.max_minutes else ""
        progress.ended_by = "plan" if progress.finished else asked or late
        if not progress.ended_by:
            pieces = stack.enter_context(contextlib.closing(setup.pieces(state, progress)))
            stop = setup.stop
            if stop is None:
                stop = stack.enter_context(StopRequest(asked=plan.folder is not None))
            try:
                state = _take_steps(setup, state, progress, saver, pieces, callbacks, stop)
            except Diverged as error:
                raise Diverged(f"{error}; {_what_then(setup)}") from None
    params = evaluation_params(state) if saver.best is None else jax.device_put(saver.best)
    if plan.keep_best is not None and saver.best is None:
        warnings.warn(
            f"{plan.keep_best} was finite after no epoch: the parameters are the last ones",
            RuntimeWarning,
            stacklevel=3,
        )
    row = saver.best_row or next(reversed(progress.rows), None)
    seconds = progress.compile_seconds, before
    return Fitted(params, state, progress.rows, *seconds, row, progress.ended_by)


def _take_steps(
    setup: Setup,
    state: vae_jax.TrainState,
    progress: Progress,
    saver: Saver,
    pieces: Iterator[stream.Piece],
    callbacks: Sequence[Callback],
    stop: StopRequest,
) -> vae_jax.TrainState:
    """Takes steps until the plan, a callback or a signal ends them; then all is saved."""
    before = progress.total_seconds
    programs: dict[Any, Callable[..., Any]] = {}  # by the shapes of a piece: of most data one
    clock = time.perf_counter()  # runs while a piece is waited for too
    num = 1  # steps of a call
    for piece in pieces:
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(piece.dataset))
        if shapes not in programs:
            compile_start = time.perf_counter()
            programs[shapes] = setup.compile(state, piece)
            progress.compile_seconds += time.perf_counter() - compile_start
            clock = time.perf_counter()
        first = piece.epoch * progress.steps_per_epoch
        last = min(first + piece.stop, progress.num_steps)
        while progress.step < last:
            num = min(num, last - progress.step)
            begin = progress.step - first - piece.start
            part = slice(begin, begin + num)
            state, metrics = programs[shapes](
                state, piece.dataset, piece.order, np.int32(part.start), np.int32(part.stop)
            )
            metrics = jax.tree.map(operator.itemgetter(part), jax.device_get(metrics))
            _check_finite(metrics.loss, state.params, progress.step)
            seconds = time.perf_counter() - clock
            progress.add(metrics, seconds)
            for callback in callbacks:
                callback.steps(progress, metrics)
            asked = ""
            if progress.at_row:
                asked = _end_epoch(setup, state, progress, saver, callbacks)
            spent = before + time.perf_counter() - setup.start
            step_seconds, signum, age, ended, spent = _agreed(
                seconds / num, stop.signum, saver.age, bool(asked), spent
            )
            if setup.replica is not None:
                step_seconds, signum, age = setup.replica.largest(step_seconds, signum, age)
            num = max(1, int(_CALL_SECONDS / step_seconds))
            # Of several processes it may be another's callback.
            ended_by = "plan" if progress.finished else asked or ("callback" if ended else "")
            if not ended_by and spent >= 60 * setup.plan.max_minutes:
                ended_by = "max_minutes"
                if not progress.at_row:  # of the steps of the epoch that there were
                    progress.num_steps = progress.step
                    ended_by = _end_epoch(setup, state, progress, saver, callbacks) or ended_by
            if ended_by or signum or age >= setup.plan.checkpoint_seconds:
                progress.total_seconds = float(spent)
                saver.save(state, progress)
            if signum:
                raise Interrupted(
                    int(signum),
                    f"stopped and saved at step {progress.step}; go on with\n"
                    f"  {setup.continued_by}",
                )
            if ended_by:
                progress.ended_by = ended_by
                return state
            clock = time.perf_counter()
    return state


def _end_epoch(
    setup: Setup,
    state: vae_jax.TrainState,
    progress: Progress,
    saver: Saver,
    callbacks: Sequence[Callback],
) -> str:
    """Writes the row of the epoch that ends here; which callback ends the training, if one does."""
    params = evaluation_params(state)
    row = progress.end_epoch({} if setup.validate is None else setup.validate(params))
    saver.add(row, params)
    return _who(callbacks, [callback.epoch(progress, row) for callback in callbacks])


def _who(callbacks: Sequence[Callback], answers: Sequence[bool | None]) -> str:
    """The class of the first callback that said yes; empty where none did."""
    asked = (type(c).__name__ for c, answer in zip(callbacks, answers, strict=True) if answer)
    return next(asked, "")


def _agreed(*values: float) -> np.ndarray:
    """The largest of each value over all processes, which must all do the same next."""
    if jax.process_count() == 1:
        return np.array(values, np.float64)
    gathered = multihost_utils.process_allgather(np.array(values, np.float32))
    largest: np.ndarray = gathered.max(axis=0)
    return largest


def evaluation_params(state: vae_jax.TrainState) -> Any:
    """The parameters that are judged: the moving average where the run keeps one.

    Whole, on one device of this process, and of the parameters' own types.
    """
    params = state.params
    if state.average is not None:
        params = jax.tree.map(lambda mean, p: mean.astype(p.dtype), state.average, params)
    sharding: Any = state.step.sharding
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    return jax.tree.map(lambda x: x.addressable_data(0), jax.device_put(params, everywhere))


@jax.jit
def _finite(tree: Any) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, np.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _check_finite(losses: np.ndarray, params: Any, first_step: int) -> None:
    infinite = np.flatnonzero(~np.isfinite(losses))
    if infinite.size:
        step = first_step + infinite[0] + 1
        raise Diverged(f"the loss of step {step} is {losses[infinite[0]]}")
    if not _finite(params):  # a finite loss can have a gradient that is not
        raise Diverged(f"the parameters after step {first_step + len(losses)} are not finite")


def _what_then(setup: Setup) -> str:
    where = setup.plan.folder
    if where is None:
        return "take a smaller step, or clip the gradient"
    return (
        f"the checkpoints in {where / 'checkpoints'} are from before it. Go on from the newest "
        f"with a smaller step, or clip the gradient:\n  {setup.continued_by}"
    )
