"""The Celery application. Its one message carries nothing: it says that there may be work in the database."""

from __future__ import annotations

from celery import Celery

WORK = "fadrm.work"
QUEUE = "fadrm"
PREFIX = "fadrm:"  # of all keys in Redis


def celery_app(redis_url: str) -> Celery:
    """Celery as a doorbell: early acknowledgement, no results, no prefetching."""
    app = Celery("fadrm", broker=redis_url)
    app.conf.update(
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        task_publish_retry=False,
        task_serializer="json",
        accept_content=["json"],
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_connect_timeout": 1,
            "socket_timeout": 5,
            "visibility_timeout": 60,  # safe: a message is acknowledged at its start, and carries nothing
            "global_keyprefix": PREFIX,
        },
    )
    return app
