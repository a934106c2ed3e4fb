#!/usr/bin/env python3
"""An application behind Carillon: receives what people send and replies, each way signed as a Standard Webhook.

    WEBHOOK_SECRET=whsec_... CARILLON_URL=http://127.0.0.1:8081 python3 examples/application.py

Carillon has the same WEBHOOK_SECRET, and UPSTREAM_URL=http://127.0.0.1:5000. Nothing has to be installed.
"""

import base64, hashlib, hmac, json, os, time, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CARILLON_URL = os.environ.get("CARILLON_URL", "http://127.0.0.1:8081")
PORT = int(os.environ.get("PORT", "5000"))
KEYS = [base64.b64decode(one.strip().removeprefix("whsec_")) for one in os.environ["WEBHOOK_SECRET"].split(",")]
TOLERANCE_S = 300
BODY_MAX_BYTES = 64 * 1024


def signatures(name, timestamp, body):
    signed = f"{name}.{timestamp}.".encode() + body
    return ["v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in KEYS]


def is_signed(headers, body):
    name, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE_S:
        return False
    given, ours = headers.get("webhook-signature", "").split(), signatures(name, timestamp, body)
    return any(hmac.compare_digest(one.encode(), own.encode()) for one in given for own in ours)


def answer(name, said):
    to = next({kind: said[kind]} for kind in ("session", "user", "connection") if kind in said)
    text = said.get("message") or "something without words"
    buttons = [{"text": "Say that again", "payload": {"again": text}}]
    # An id that follows from the webhook's: it may come more than once, and is answered once.
    return {"id": name, "to": to, "body": f"You said: {text}", "data": {"buttons": buttons}}


def post(name, notification):
    body, timestamp = json.dumps(notification).encode(), str(int(time.time()))
    headers = {"content-type": "application/json", "webhook-id": name, "webhook-timestamp": timestamp}
    headers["webhook-signature"] = " ".join(signatures(name, timestamp, body))
    request = urllib.request.Request(CARILLON_URL + "/api/notifications", body, headers)
    urllib.request.urlopen(request, timeout=5).close()


class Application(BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self):
        size = int(self.headers.get("content-length") or 0)
        if size > BODY_MAX_BYTES:
            return self.send_error(413)
        body = self.rfile.read(size)
        if not is_signed(self.headers, body):
            return self.send_error(401)
        try:
            name = "re-" + self.headers["webhook-id"]
            post(name, answer(name, json.loads(body)))
        except OSError as error:
            # Carillon will send the message again.
            return self.send_error(502, explain=str(error))
        self.send_response(204)
        self.end_headers()


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", PORT), Application).serve_forever()
