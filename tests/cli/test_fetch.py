#!/usr/bin/env python3
"""`thaw fetch` against a server of this test: whole and interrupted downloads, wrong contents, no network."""
import hashlib
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402

SCRIPT = os.path.join(harness.ROOT, "weights", "fetch.sh")
BYTES = bytes((i * i + i // 251) % 256 for i in range(300000))
MD5 = hashlib.md5(BYTES).hexdigest()
# What Keras' applications name these files.
OFFICIAL = {("vgg16", "top"): 553467096, ("vgg16", "notop"): 58889256, ("vgg19", "top"): 574710816,
            ("vgg19", "notop"): 80134624, ("resnet50", "top"): 102967424, ("resnet50", "notop"): 94765736,
            ("inceptionv3", "top"): 96112376, ("inceptionv3", "notop"): 87910968}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves BYTES at /file, with Range; /cut stops in the middle; /plain knows no Range; /other has other bytes; /long is
    longer than it should be."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        body = {"/other": b"x" + BYTES[1:], "/long": BYTES + b"more"}.get(self.path, BYTES)
        if self.path == "/nothing":
            self.send_error(404)
            return
        first = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted and self.path != "/plain":
            first = int(wanted.group(1))
            self.send_response(206)
            self.send_header("Content-Range", "bytes %d-%d/%d" % (first, len(body) - 1, len(body)))
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - first))
        self.end_headers()
        body = body[first:]
        self.wfile.write(body[:len(body) // 2] if self.path == "/cut" else body)

    def log_message(self, *arguments):
        pass


class Fetch(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        cls.server.asked = []
        cls.address = "http://127.0.0.1:%d" % cls.server.server_address[1]
        cls.thread = threading.Thread(target=cls.server.serve_forever, daemon=True)
        cls.thread.start()

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.server.server_close()
        cls.thread.join()
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        self.server.asked.clear()
        self.weights = self.path("weights")
        self.file = os.path.join(self.weights, "net_notop.h5")

    def fetch(self, path, *arguments, name="net", ranks=0, env=None, md5=MD5, where=None):
        with open(self.path("manifest"), "w") as f:
            f.write("# comment\nother top other.h5 5 %s http://127.0.0.1/none\n" % ("0" * 32))
            f.write("net notop net_notop.h5 %d %s %s\n" % (len(BYTES), md5, (where or self.address) + path))
        env = dict({"THAW_WEIGHTS_MANIFEST": self.path("manifest"), "THAW_WEIGHTS": self.weights, "no_proxy": "127.0.0.1"},
                   **(env or {}))
        return harness.run("fetch", name, "--no-top", *arguments, ranks=ranks, env=env, cwd=self.dir, timeout=60)

    def fails(self, result, status, *words):
        self.assertEqual(result.status, status, str(result))
        self.assertEqual(result.out, "", str(result))
        self.assertEqual(len(result.messages), 1, str(result))
        for word in words:
            self.assertIn(word, result.messages[0], str(result))
        self.assertFalse(os.path.exists(self.file))

    def there(self, result):
        self.assertEqual(result.status, 0, str(result))
        self.assertEqual(harness.read_bytes(self.file), BYTES)
        self.assertEqual(os.listdir(self.weights), ["net_notop.h5"])
        self.assertIn(self.file, result.out)

    def test_whole_then_already_there(self):
        self.there(self.fetch("/file"))
        self.assertEqual(len(self.server.asked), 1)
        again = self.fetch("/file")
        self.there(again)
        self.assertIn("already there", again.out)
        self.assertEqual(len(self.server.asked), 1, "it was downloaded again")

    def test_folder_of_the_option(self):
        self.weights = self.path("else", "where")
        self.file = os.path.join(self.weights, "net_notop.h5")
        self.there(self.fetch("/file", "--weights-dir", self.weights, env={"THAW_WEIGHTS": self.path("unused")}))
        self.assertFalse(os.path.exists(self.path("unused")))

    def test_default_folder(self):
        result = self.fetch("/file", env={"THAW_WEIGHTS": ""})
        self.assertEqual(result.status, 0, str(result))
        self.assertEqual(harness.read_bytes(self.file), BYTES)

    def test_interrupted_download_goes_on(self):
        result = self.fetch("/cut")
        self.fails(result, 69, "run again")
        part = harness.read_bytes(self.file + ".part")
        self.assertGreater(len(part), 0)
        self.assertLess(len(part), len(BYTES))
        self.assertEqual(part, BYTES[:len(part)])
        self.server.asked.clear()
        self.there(self.fetch("/file"))
        self.assertEqual(self.server.asked, [("/file", "bytes=%d-" % len(part))])

    def test_server_without_ranges(self):
        os.makedirs(self.weights)
        with open(self.file + ".part", "wb") as f:
            f.write(BYTES[:1000])
        self.there(self.fetch("/plain"))

    def test_part_that_is_whole(self):
        os.makedirs(self.weights)
        with open(self.file + ".part", "wb") as f:
            f.write(BYTES)
        self.there(self.fetch("/file"))
        self.assertEqual(self.server.asked, [])

    def test_wrong_checksum(self):
        self.fails(self.fetch("/other"), 65, "md5", MD5, "deleted")
        self.assertEqual(os.listdir(self.weights), [])
        self.there(self.fetch("/file"))

    def test_wrong_size(self):
        self.fails(self.fetch("/long"), 65, str(len(BYTES) + 4), str(len(BYTES)))
        self.assertEqual(os.listdir(self.weights), [])

    def test_another_file_of_that_name_stays(self):
        os.makedirs(self.weights)
        with open(self.file, "wb") as f:
            f.write(b"mine")
        result = self.fetch("/file")
        self.assertEqual(result.status, 65, str(result))
        self.assertIn("move it away", result.messages[0])
        self.assertEqual(harness.read_bytes(self.file), b"mine")

    def test_no_network(self):
        with socket.socket() as s:  # a port on which nobody listens
            s.bind(("127.0.0.1", 0))
            nobody = "http://127.0.0.1:%d" % s.getsockname()[1]
        self.fails(self.fetch("/file", where=nobody), 69, nobody, "proxy", self.file)
        self.assertEqual(os.listdir(self.weights), [])

    def test_not_found(self):
        self.fails(self.fetch("/nothing"), 69, "/nothing")
        self.assertEqual(os.listdir(self.weights), [])

    def test_file_address(self):
        if not shutil.which("curl"):
            self.skipTest("wget does not know file://")
        with open(self.path("source"), "wb") as f:
            f.write(BYTES)
        os.makedirs(self.weights)
        with open(self.file + ".part", "wb") as f:
            f.write(BYTES[:777])
        self.there(self.fetch(self.path("source"), where="file://"))

    def test_unknown_name(self):
        self.fails(self.fetch("/file", name="nett"), 64, "nett", "net", "other")

    def test_no_manifest(self):
        self.fails(self.fetch("/file", env={"THAW_WEIGHTS_MANIFEST": self.path("none")}), 66, self.path("none"))

    def test_folder_below_a_file(self):
        with open(self.path("file"), "w") as f:
            f.write("x")
        result = self.fetch("/file", "--weights-dir", self.path("file", "w"))
        self.assertEqual(result.status, 73, str(result))
        self.assertEqual(len(result.messages), 1, str(result))

    def test_on_two_ranks_one_fetches(self):
        self.there(self.fetch("/file", ranks=2))
        self.assertEqual(len(self.server.asked), 1)
        shutil.rmtree(self.weights)
        self.fails(self.fetch("/other", ranks=2), 65, "md5")

    def test_script_alone(self):
        self.fetch("/file", name="nett")  # writes the manifest
        done = subprocess.run(["sh", SCRIPT, "--manifest", self.path("manifest"), "net", "notop", self.weights],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(harness.read_bytes(self.file), BYTES)
        done = subprocess.run(["sh", SCRIPT, "--manifest", self.path("manifest"), "net", "top", self.weights],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
        self.assertEqual((done.returncode, done.stdout), (64, ""))
        self.assertIn("fetch.sh: no official weights", done.stderr)

    def test_wget(self):
        """Where there is no curl."""
        if not shutil.which("wget"):
            self.skipTest("no wget")
        bin_folder = self.path("bin")
        os.makedirs(bin_folder)
        for tool in "sh awk wc md5sum cut rm mv mkdir sed dirname cat wget".split():
            os.symlink(shutil.which(tool), os.path.join(bin_folder, tool))
        env = {"PATH": bin_folder, "OMPI_MCA_plm_rsh_agent": "/bin/true"}  # Open MPI does not start without an ssh
        os.makedirs(self.weights)
        with open(self.file + ".part", "wb") as f:
            f.write(BYTES[:1000])
        self.there(self.fetch("/file", env=env))
        self.assertEqual(self.server.asked, [("/file", "bytes=1000-")])
        shutil.rmtree(self.weights)
        self.fails(self.fetch("/nothing", env=env), 69, "/nothing")
        os.remove(os.path.join(bin_folder, "wget"))
        self.fails(self.fetch("/file", env=env), 69, "curl", "wget")

    def test_manifest_of_this_version(self):
        """Names that the program knows, sizes and addresses of Keras' official files."""
        rows = {}
        with open(os.path.join(harness.ROOT, "weights", "manifest")) as f:
            for line in f:
                if not line.startswith("#"):
                    name, kind, file, size, md5, address = line.split()
                    rows[name, kind] = int(size)
                    self.assertRegex(md5, "^[0-9a-f]{32}$")
                    self.assertTrue(address.startswith("https://") and address.endswith("/" + file))
                    self.assertEqual("_notop" in file, kind == "notop")
        self.assertEqual(rows, OFFICIAL)


if __name__ == "__main__":
    harness.main()
