import assert from "node:assert/strict";
import { test } from "node:test";

import { isSendKey } from "../../runtime/cappella/gateway/web/assets/enter_key.js";

test("Enter sends, alone and with Ctrl or Cmd", () => {
  for (const keys of [{}, { ctrlKey: true }, { metaKey: true }]) assert.ok(isSendKey({ key: "Enter", ...keys }));
});

test("Enter does not send with Shift or Alt, nor while an input method composes a word", () => {
  const others = [{ shiftKey: true }, { altKey: true }, { isComposing: true }, { keyCode: 229 }];
  for (const keys of others) assert.ok(!isSendKey({ key: "Enter", ...keys }));
  assert.ok(!isSendKey({ key: "a" }));
});
