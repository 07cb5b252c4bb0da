"""The dashboard's backend for Python, without any package."""

import base64
import hashlib
import hmac
import json
import math
import os
import pathlib
import random
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

JWT_SECRET = os.environ.get("JWT_SECRET")
API_KEY = os.environ.get("API_KEY")
if not JWT_SECRET or not API_KEY:
    raise SystemExit("JWT_SECRET and API_KEY must be set")
API_URL = os.environ.get("API_URL", "http://localhost:3001")
NODE_URL = os.environ.get("NODE_URL", "http://localhost:3000")
PORT = int(os.environ.get("PORT", "8000"))
PAGE = pathlib.Path(__file__).with_name("index.html").read_bytes()


def token():
    """Returns a token for a user of the page: it joins the room and permits to read its history."""

    def part(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    head = {"alg": "HS256", "typ": "JWT"}
    claims = {
        "sub": "viewer",
        "exp": int(time.time()) + 300,
        "rejoin": {"rooms": ["dashboard"], "can": {"history": ["dashboard"]}},
    }
    signed = part(json.dumps(head).encode()) + b"." + part(json.dumps(claims).encode())
    signature = hmac.new(JWT_SECRET.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + part(signature)).decode()


def emit(figures, key):
    """Sends one event to the room. Repeated calls with the same key send it once."""
    request = urllib.request.Request(
        API_URL + "/api/v1/emit",
        method="POST",
        headers={"Authorization": "Bearer " + API_KEY, "Content-Type": "application/json", "Idempotency-Key": key},
        data=json.dumps({"rooms": ["dashboard"], "event": "figures", "args": [figures]}).encode(),
    )
    with urllib.request.urlopen(request, timeout=5):
        pass


class Site(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/":
            self.answer("text/html; charset=utf-8", PAGE)
        elif self.path == "/token":
            self.answer("application/json", json.dumps({"url": NODE_URL, "token": token()}).encode())
        else:
            self.send_error(404)

    def answer(self, content_type, body):
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def main():
    site = ThreadingHTTPServer(("127.0.0.1", PORT), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    print(f"open http://localhost:{PORT}/", flush=True)
    begun, orders = time.time_ns(), 0
    for n in range(1, 1 << 62):
        orders += random.randint(0, 3)
        visitors = round(50 + 30 * math.sin(n / 10) + 10 * random.random())
        try:
            emit({"n": n, "visitors": visitors, "orders": orders}, f"figures-{begun}-{n}")
        except urllib.error.HTTPError as err:
            print(f"number {n}: {json.load(err)['detail']}", flush=True)
        except OSError as err:
            print(f"number {n}: {err}", flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
