"""What Schemathesis can't know of bursar: the socket, what the description says in prose, what every answer has, and
which refusals of well-formed requests are right."""

import json
import os
import re
import socket
from collections import Counter
from urllib.parse import parse_qsl, urlsplit

import requests
import schemathesis
import urllib3
from requests.adapters import HTTPAdapter
from schemathesis.openapi.checks import RejectedPositiveData

# --- the socket


class Connection(urllib3.connection.HTTPConnection):
    def _new_conn(self):
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(self.timeout)
        stream.connect(os.environ["BURSAR_SOCKET"])
        return stream


class Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = Connection


class Adapter(HTTPAdapter):
    def init_poolmanager(self, *arguments, **options):
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": Pool}


def on_the_socket(session, original=requests.Session.__init__):
    original(session)
    session.trust_env = False  # no proxy
    session.mount("http://bursar", Adapter())


requests.Session.__init__ = on_the_socket

# --- what the description says in prose

HEADERS = ["X-Request-Id", "Accept"]
# What one answer gives and another request takes: the path of the one, the operation of the other, how.
LINKS = [
    ("/v1/token", "introspect", {"requestBody": {"token": "$response.body#/access_token"}}),
    ("/v1/grants", "listGrants", {"parameters": {"query.cursor": "$response.body#/next_cursor"}}),
]


@schemathesis.hook
def before_load_schema(context, raw_schema):
    paths = raw_schema["paths"]
    for path in paths.values():
        path["parameters"] = [{"name": name, "in": "header", "schema": {"type": "string"}} for name in HEADERS]
    for path, operation, how in LINKS:
        paths[path]["get"]["responses"]["200"]["links"] = {operation: {"operationId": operation, **how}}


# --- what every answer has

SANE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]{20,}\.")


@schemathesis.check
class Interface:
    """Headers and problems are as promised, no token is where none belongs, and what is said of a token is true."""

    def __init__(self, answered=()):
        self.expected, self.answered = answered, Counter()
        self.users = {}  # by token of snowflake

    def after_response(self, ctx, response, case):
        request, status = response.request, response.status_code
        path, query = urlsplit(request.url).path, parse_qsl(urlsplit(request.url).query, keep_blank_values=True)
        operation = f"{request.method} {path}"
        header = {name: values[0] for name, values in response.headers.items()}
        media_type = header["content-type"].partition(";")[0]
        self.answered[f"{operation} {status} {media_type}"] += 1

        assert header["cache-control"] == "no-store", "it might be cached"
        assert SANE.fullmatch(header["x-request-id"]), "its request id is not sane"
        given = request.headers.get("X-Request-Id", "")
        given = given.decode("latin-1") if isinstance(given, bytes) else given
        assert not SANE.fullmatch(given) or header["x-request-id"] == given, "the caller's own request id is lost"

        if status >= 400:
            problem = json.loads(response.content)
            assert media_type == "application/problem+json", "an error that is no problem"
            assert problem["status"] == status, "a problem of another status"
            assert problem["request_id"] == header["x-request-id"], "a problem of another request"

        # Schemathesis takes it for a matter of taste whether these are refused.
        names = [name for name, _ in query]
        unknown = set(names) - {parameter.name for parameter in case.operation.query}
        if (unknown or len(set(names)) < len(names)) and "400" in case.operation.responses.status_codes:
            assert status in (400, 405), "a parameter that is unknown or there twice is let through"

        given_out = operation == "GET /v1/token" and status == 200
        assert given_out or not TOKEN.search(response.content), "a token where none belongs"
        if given_out and media_type == "text/plain":
            assert "text/plain" in request.headers["Accept"], "a token alone that nobody asked for"
            self.users[response.content.decode()] = dict(query)["user"]
        elif given_out:
            token = json.loads(response.content)
            assert token["user"] == dict(query)["user"], "another user's token"
            self.users[token["access_token"]] = token["user"]

        form = case.body if isinstance(case.body, dict) else {}
        user = self.users.get(form.get("token"))
        if operation == "POST /v1/introspect" and status == 200 and user is not None:
            claims = json.loads(response.content)
            right = form.get("service", "snowflake") == "snowflake"
            assert claims["active"] is right, "a token is said to be genuine where it is not, or not where it is"
            assert not right or claims["sub"] == user, "a token is said to be another user's"

    def after_run(self, ctx):
        missing = [answer for answer in self.expected if not self.answered[answer]]
        assert not missing, f"never answered: {missing}, but {dict(self.answered)}"


# --- which refusals of well-formed requests are right

DEPENDS = {
    # It is opaque, so a made-up one is refused. Real ones come from ./run and by the link.
    "cursor: not one that an earlier page gave",
    # Which roles a service has is said by the configuration.
    "role: the service has no such role",
    # It may be left out only for services whose tokens speak for no user.
    "user: missing",
}


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if not isinstance(failure, RejectedPositiveData) or response.status_code != 400:
        return True
    return json.loads(response.content)["detail"] not in DEPENDS
