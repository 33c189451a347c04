"""uWebSockets under the load of roomcast-loadtest: connect, subscribe and publish of the client protocol in JSON, and
nothing else of it. Commands are read here; who is subscribed, and every delivery, is the library's own publish and
subscribe, which knows no tokens, no pings of the protocol and no other node. Takes a port of the loopback address."""

import json
import sys

from socketify import App, OpCode


def reply(command, name, content):
    return json.dumps({"id": command["id"], name: content}, separators=(",", ":"))


def publication(publish):
    push = {"channel": publish["channel"], "pub": {"data": publish["data"]}}
    return json.dumps({"push": push}, separators=(",", ":"))


def answer(app, socket, command):
    """The reply to one command; None for what wants none."""
    if "connect" in command:
        return reply(command, "connect", {"client": "c", "version": "uWebSockets"})
    if "subscribe" in command:
        socket.subscribe(command["subscribe"]["channel"])
        return reply(command, "subscribe", {})
    if "publish" in command:
        publish = command["publish"]
        app.publish(publish["channel"], publication(publish), OpCode.TEXT, False)
        return reply(command, "publish", {})
    return None


def main(port):
    app = App()

    def message(socket, text, _opcode):
        replies = (answer(app, socket, json.loads(line)) for line in text.splitlines() if line)
        if whole := "\n".join(filter(None, replies)):
            socket.send(whole, OpCode.TEXT)

    # As much may wait for a client as with Roomcast; beyond it the library leaves messages out.
    app.ws("/*", {"message": message, "max_backpressure": 1024 * 1024, "idle_timeout": 960, "compression": 0})
    app.listen({"host": "127.0.0.1", "port": port}, lambda _: print("ready", flush=True))
    app.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
