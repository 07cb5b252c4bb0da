"""Drives one python-socketio client for the Go tests.

Commands arrive on standard input as JSON lines: {"ask": [event, args...]} or
{"emit": [event, args...]}. Reports leave on standard output as JSON lines. The
handlers have exactly the parameters of the events that the tests emit, so an
additional argument is an error, as in a user's program.
"""
import json
import sys
import threading

import socketio

lock = threading.Lock()


def report(**fields):
    with lock:
        print(json.dumps(fields), flush=True)


url, transport = sys.argv[1:]
client = socketio.Client(reconnection_delay=0.02, reconnection_delay_max=0.2)


@client.event
def connect():
    report(report="connect", id=client.get_sid())


@client.event
def connect_error(error):
    report(report="connect_error", reason=str(error))


@client.event
def disconnect():
    report(report="disconnect")


@client.on("nothing")
def nothing():
    report(report="event", event="nothing", args=[])


@client.on("chat")
def chat(text):
    report(report="event", event="chat", args=[text])


@client.on("pair")
def pair(first, second):
    report(report="event", event="pair", args=[first, second])


@client.on("bytes")
def data(content):
    report(report="event", event="bytes", args=[content.hex()])


client.connect(url, transports=[transport])
for line in sys.stdin:
    command = json.loads(line)
    if "emit" in command:
        event, *args = command["emit"]
        client.emit(event, tuple(args))
    elif "ask" in command:
        event, *args = command["ask"]
        report(report="ack", args=[client.call(event, tuple(args), timeout=10)])
client.disconnect()
