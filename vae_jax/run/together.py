"""Runs in threads whose steps are one program: on an accelerator many cost little more than one."""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Together:
    """Where the threads of replicas meet: each waits until all that still train have come.

    They are runs of one program, which differ in their seeds alone.

    Args:
      num: of replicas. One that has ended stays in the program, so that it is compiled once.
    """

    def __init__(self, num: int) -> None:
        self._training = set(range(num))
        self._num = num
        self._condition = threading.Condition()
        self._values: dict[int, Any] = {}
        self._function: Callable[[dict[int, Any]], dict[int, Any]] = dict
        self._results: dict[int, Any] = {}
        self._program: Callable[..., Any] | None = None
        self._data: Any = None

    def replica(self, who: int) -> "Replica":
        return Replica(self, who)

    def join(
        self, who: int, value: Any, function: Callable[[dict[int, Any]], dict[int, Any]]
    ) -> Any:
        """What a function of all replicas' values gives this one; called once, by the last."""
        with self._condition:
            self._values[who], self._function = value, function
            self._settle()
            self._condition.wait_for(lambda: who in self._results)
            result = self._results.pop(who)
        if isinstance(result, BaseException):
            raise result
        return result

    def leave(self, who: int) -> None:
        """The others go on without it."""
        with self._condition:
            self._training.discard(who)
            self._settle()

    def _settle(self) -> None:
        if not self._values or self._values.keys() < self._training:
            return
        values, self._values = self._values, {}
        try:
            self._results |= self._function(values)
        except BaseException as error:  # of one thread all must hear
            self._results |= dict.fromkeys(values, error)
        self._condition.notify_all()

    def take_steps(self, train_epoch: Callable[..., Any], calls: dict[int, Any]) -> dict[int, Any]:
        """A call of the program for each replica, (state, dataset, order, start, stop), as one."""
        if self._program is None:
            # Bounds of their own, as of runs resumed at other steps, make it a loop to the last.
            self._program = jax.jit(
                lambda states, dataset, orders, start, stop: jax.vmap(
                    train_epoch, in_axes=(0, None, 0, *[0 if start.ndim else None] * 2)
                )(states, dataset, orders, start, stop),
                donate_argnums=0,
            )
        first = next(iter(calls))
        shown = [calls.get(who, calls[first]) for who in range(self._num)]
        states, datasets, orders, starts, stops = zip(*shown, strict=True)
        bounds = [jnp.asarray(bound) for bound in (starts, stops)]
        if len({*zip(map(int, starts), map(int, stops), strict=True)}) == 1:
            bounds = [bound[0] for bound in bounds]
        stacked, order = jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *zip(states, orders, strict=True)
        )
        trained = self._program(stacked, datasets[0], order, *bounds)
        return {who: jax.tree.map(lambda leaf, who=who: leaf[who], trained) for who in calls}

    def shared(self, make: Callable[[], Any]) -> Any:
        """The data on the device, which all replicas have alike: made by the first that asks."""
        with self._condition:
            if self._data is None:
                self._data = make()
            return self._data


class Replica(NamedTuple):
    """One of the runs that meet."""

    together: Together
    who: int

    def program(self, train_epoch: Callable[..., Any], sharding: Any) -> Callable[..., Any]:
        """What takes this replica's steps, with the others', and lays its state out again."""

        def of_all(calls: dict[int, Any]) -> dict[int, Any]:
            return self.together.take_steps(train_epoch, calls)

        def take_steps(*call: Any) -> Any:
            state, metrics = self.together.join(self.who, call, of_all)
            return jax.device_put(state, sharding), metrics

        return take_steps

    def largest(self, *values: float) -> tuple[float, ...]:
        """The largest of each value over all replicas, which must all do the same next."""

        def of_all(of_each: dict[int, Any]) -> dict[int, Any]:
            largest = tuple(map(max, zip(*of_each.values(), strict=True)))
            return dict.fromkeys(of_each, largest)

        found: tuple[float, ...] = self.together.join(self.who, values, of_all)
        return found
