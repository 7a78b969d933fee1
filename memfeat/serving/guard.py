"""Who may ask the server: Host and Origin of each request, and what the browser may do with it."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PROTECTION = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# The page of the API's documentation, which is the library's, holds a script.
_DOCS_POLICY = _PAGE_POLICY.replace("script-src 'self'", "script-src 'self' 'unsafe-inline'")
_DOCS_POLICY = _DOCS_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")


class Guard:
    """Refuses what other web pages have a browser ask, and sends the headers that protect ours.

    A page elsewhere can have the browser send requests here, and can let its own name point here.
    The first have another Origin than their Host, the second a Host that is not ours.

    Args:
        app: what answers the requests that pass.
        hosts: names, without a port, that the server may be called by; None for any, where a secret
            in the URL keeps others out.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        policy = _DOCS_POLICY if scope["path"].endswith("/docs") else _PAGE_POLICY

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = _PROTECTION | {"Content-Security-Policy": policy}
                MutableHeaders(scope=message).update(own)
            await send(message)

        refusal = self._refusal(headers.getlist("host"), headers.getlist("origin"))
        if refusal:
            response = PlainTextResponse(f"{refusal}\n", status_code=403)
            await response(scope, receive, send_protected)
        else:
            await self._app(scope, receive, send_protected)

    def _refusal(self, hosts: list[str], origins: list[str]) -> str:
        if len(hosts) != 1:
            return "a request names one Host"
        host = hosts[0].lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self._hosts is not None and name not in self._hosts:
            return (
                f"this server does not answer to that name, but to {', '.join(sorted(self._hosts))}"
            )
        if any(origin.lower().partition("://")[2] != host for origin in origins):
            return "requests from other web pages are refused"
        return ""
