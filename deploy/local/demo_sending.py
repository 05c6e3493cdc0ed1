"""Sends the demo's messages: through RabbitMQ with confirms, and over HTTP with a look at the answers."""

import http.client
from collections.abc import Iterator

from deploy.local.demo_events import Message, Traffic
from kanikojobs import amqp


def send(traffic: Traffic, *, rabbitmq_url: str, queue: str, web_port: int) -> Iterator[str]:
    """Sends one message after the other, and says of each what was wrong with the answer, or nothing."""
    with amqp.connect(rabbitmq_url, name="kanikojobs demo") as connection:
        for message in traffic.messages:
            if not message.by_http:
                publication = amqp.Publication("", queue, message.body, message.content_type, message.headers)
                amqp.publish(connection, [publication])
                yield ""
    for message in traffic.messages:
        if message.by_http:
            status = http_status("POST", "/", port=web_port, message=message)
            wanted = message.http_status
            yield "" if status == wanted else f"{message.kind.name}: HTTP answered {status}, not {wanted}"


def http_status(method: str, path: str, *, port: int, message: Message | None = None) -> int:
    """The status of one request to the demo's web; 0 when nobody answers."""
    headers = {} if message is None else {"Content-Type": message.content_type, **message.headers}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body=None if message is None else message.body, headers=headers)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()
