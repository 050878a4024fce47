"""Start the service on a trained model and call its HTTP API.

    python examples/serve_and_call.py

Needs the extra "serve": pip install "genrec[serve]"
"""

import argparse
import json
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import Request, urlopen

import genrec


def call(url: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, {"Content-Type": "application/json"})) as answer:
        return json.load(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="ml-100k", help="known name, or a prepared folder")
    parser.add_argument("--backbone", default="smollm2-135m", help="language model to start from")
    parser.add_argument("--minutes", type=float, default=5, help="time for training")
    parser.add_argument("--out", default="runs/served", help="folder for the trained model")
    parser.add_argument("--port", type=int, default=8000)
    args = parser.parse_args()

    socket.create_server(("127.0.0.1", args.port)).close()  # fails if another service runs there
    split = genrec.leave_last_out(genrec.load_dataset(args.data))
    model = genrec.GenRec(args.backbone).fit(split.train, minutes=args.minutes)
    model.save_pretrained(args.out)

    command = [sys.executable, "-m", "genrec", "serve", args.out, "--port", str(args.port)]
    api = f"http://127.0.0.1:{args.port}"
    with subprocess.Popen(command) as service:
        try:
            while service.poll() is None:  # the model is read before the service is ready
                try:
                    urlopen(f"{api}/readyz").close()
                    break
                except URLError:
                    time.sleep(0.5)
            history = ["Toy Story (1995)", {"title": "GoldenEye (1995)"}]
            print(call(f"{api}/v1/recommend", {"history": history, "k": 3}))
            # Events are stored, and count as the user's history from now on.
            call(f"{api}/v1/users/ann/events", {"events": [{"title": "Fargo (1996)"}]})
            print(call(f"{api}/v1/users/ann/recommendations?k=3"))
        finally:
            service.terminate()


if __name__ == "__main__":
    main()
