"""Celery on Redis: job ids on their way to workers, on this host or on others.

What is in Redis may be lost or doubled at any moment. A message is acknowledged when its job has
ended, and counts as lost after the visibility timeout, which is longer than any job may take.
"""

import json
import threading
from collections.abc import Callable, Collection
from typing import Final

from celery import Celery
from kombu.exceptions import KombuError
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from ..domain import Priority
from ..observability import get_logger
from ..settings import Settings
from ..storage.workers import WorkerStore

TASK: Final = "aqcf.execute"
PREFIX: Final = "aqcf:"  # of every key: a Redis may be shared
QUEUE: Final = "jobs"
STEPS: Final = {Priority.URGENT: 0, Priority.ROUTINE: 5}  # Redis is asked for the lowest first
KEYS: Final = (f"{PREFIX}{QUEUE}", f"{PREFIX}{QUEUE}:{STEPS[Priority.ROUTINE]}")
ANSWER_S: Final = 3.0  # a Redis that takes longer counts as away

log = get_logger("service.queue")


def make_app(settings: Settings) -> Celery:
    """The Celery application that gateways send with and workers run."""
    app = Celery("aqcf", broker=settings.redis_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_send_sent_event=False,
        broker_connection_timeout=ANSWER_S,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": settings.visibility_timeout_s,
            "global_keyprefix": PREFIX,
            "priority_steps": sorted(STEPS.values()),
            "queue_order_strategy": "priority",
            "sep": ":",
            "socket_timeout": ANSWER_S,
            "socket_connect_timeout": ANSWER_S,
            "socket_keepalive": True,
            "max_retries": 0,
        },
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
    )
    return app


class CeleryQueue:
    """Sends ids to Redis. Workers are other processes: ``service.worker`` runs one."""

    def __init__(self, settings: Settings, workers: WorkerStore) -> None:
        self.app = make_app(settings)
        self._workers = workers
        self._max_silence_s = settings.heartbeat_timeout_s
        self._stopping = threading.Event()
        self._redis = Redis.from_url(
            settings.redis_url or "",
            socket_timeout=ANSWER_S,
            socket_connect_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),
        )

    def send(self, job_id: str, priority: Priority = Priority.ROUTINE) -> None:
        try:
            self.app.send_task(
                TASK,
                (job_id,),
                task_id=job_id,
                priority=STEPS[priority],
                retry=False,
                argsrepr="",
                kwargsrepr="",
            )
        except (KombuError, RedisError, OSError) as error:  # the sweep sends it again
            log.warning("not_sent", job_id=job_id, exc_info=error)

    def waiting(self) -> Collection[str] | None:
        try:
            lines = [line for key in KEYS for line in self._redis.lrange(key, 0, -1)]
        except (RedisError, OSError):
            return None
        return frozenset(json.loads(line)["headers"]["id"] for line in lines)

    def start(self, work: Callable[[str], None]) -> None:
        """This process owns no worker: nothing happens."""

    def stop(self, timeout_s: float = 0.0) -> None:  # noqa: ARG002
        """Tell the worker of this process, if it is one, to leave."""
        self._stopping.set()

    def stopping(self) -> bool:
        return self._stopping.is_set()

    def reachable(self) -> bool:
        try:
            return bool(self._redis.ping())
        except (RedisError, OSError):
            return False

    def alive(self) -> bool:
        return any(worker.ready for worker in self._workers.alive(self._max_silence_s))

    def close(self) -> None:
        self._redis.close()
        self.app.close()
