// Files as attachments: text, CSV and code are read here, PDF and DOCX by the server, images for models that see.

const MAX_TEXT_BYTES = 8 * 1024 * 1024;
const MAX_IMAGE_BYTES = 1024 * 1024;
const MAX_IMAGE_SIDE = 1568;
const QUALITY = 0.85;
const DOCUMENT = /\.(pdf|docx)$/i;
const IMAGE = /^image\/(png|jpeg|webp|gif)$/;
const MAX_STRANGE_SHARE = 0.01;

/** Why a file is not attached, in words for the user. */
export class UnreadableFile extends Error {}

/** The attachment of a file. Throws UnreadableFile. */
export async function readFile(file, { api, takesImages }) {
  if (file.type.startsWith("image/")) return readImage(file, takesImages);
  if (DOCUMENT.test(file.name)) return readDocument(file, api);
  if (file.size > MAX_TEXT_BYTES) throw new UnreadableFile(`${file.name} is larger than ${sizeText(MAX_TEXT_BYTES)}.`);
  const text = decoded(new Uint8Array(await file.arrayBuffer()));
  if (text === null) throw new UnreadableFile(`${file.name} is no text: attach texts, tables as CSV, code, PDF, DOCX or images.`);
  if (!text.trim()) throw new UnreadableFile(`${file.name} is empty.`);
  return { name: file.name, kind: "text", text: text.trimEnd() };
}

/** The text of bytes in UTF-8, UTF-16 with its mark, or Windows' Western encoding; null if they are no text. */
export function decoded(bytes) {
  const encoding = { "255,254": "utf-16le", "254,255": "utf-16be" }[bytes.slice(0, 2).join(",")];
  const text = tryDecode(bytes, encoding ?? "utf-8") ?? tryDecode(bytes, "windows-1252");
  const strange = text.match(/[\0-\x08\x0e-\x1a\x1c-\x1f\ufffd]/g)?.length ?? 0;
  return strange > text.length * MAX_STRANGE_SHARE ? null : text.replaceAll(/\r\n?/g, "\n");
}

function tryDecode(bytes, encoding) {
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

async function readDocument(file, api) {
  // A file that is gone would look like a server that is.
  await file.slice(0, 1).arrayBuffer();
  try {
    const { text, pages, all_pages: all, cut } = await api.upload("/api/documents", file);
    const part = pages !== null && pages < all ? ` (pages 1 to ${pages} of ${all})` : cut ? " (its beginning)" : "";
    return { name: file.name + part, kind: "text", text };
  } catch (error) {
    throw new UnreadableFile(`${file.name}: ${error.status === undefined ? "the server does not answer." : error.message}`);
  }
}

async function readImage(file, takesImages) {
  if (!takesImages) throw new UnreadableFile(`${file.name} is not attached: none of these models sees images.`);
  const picture = await createImageBitmap(file).catch(() => null);
  if (!picture) throw new UnreadableFile(`${file.name} is damaged, or no image that browsers know.`);
  const isSmall = file.size <= MAX_IMAGE_BYTES && Math.max(picture.width, picture.height) <= MAX_IMAGE_SIDE;
  const blob = isSmall && IMAGE.test(file.type) ? file : await shrunk(picture);
  return { name: file.name, kind: "image", url: await dataUrl(blob) };
}

/** A large picture as a smaller one: models see no more of it. */
async function shrunk(picture) {
  const scale = Math.min(1, MAX_IMAGE_SIDE / Math.max(picture.width, picture.height));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * scale)));
  const context = canvas.getContext("2d");
  // JPEG has no transparency: what is transparent would be black.
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(blob);
  });
}

function sizeText(bytes) {
  return `${Math.round(bytes / 1024 / 1024)} MiB`;
}
