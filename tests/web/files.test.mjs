// The bytes of a file as text.
import assert from "node:assert/strict";
import { test } from "node:test";

import { decoded } from "../../runtime/cappella/gateway/web/assets/file_reading.js";

const bytes = (...parts) => new Uint8Array(Buffer.concat(parts.map((part) => Buffer.from(part))));

test("text is read in the encodings in which it is written", () => {
  assert.equal(decoded(bytes("Größe\r\n2\r3")), "Größe\n2\n3");
  assert.equal(decoded(bytes([0xef, 0xbb, 0xbf], "a")), "a");
  assert.equal(decoded(bytes([0xff, 0xfe], Buffer.from("Größe", "utf16le"))), "Größe");
  assert.equal(decoded(bytes([0xfe, 0xff], Buffer.from("Größe", "utf16le").swap16())), "Größe");
  assert.equal(decoded(bytes(Buffer.from("Größe", "latin1"))), "Größe");
});

test("what is no text is told apart", () => {
  assert.equal(decoded(bytes([...Array(256).keys()])), null);
  assert.equal(decoded(bytes("PK\x03\x04", [0, 1, 2, 3, 0xff, 0])), null);
});
