import { Buffer } from "node:buffer";
import { createHash, generateKeyPairSync, sign, verify } from "node:crypto";
import { pipeline } from "node:stream/promises";
import { brotliCompressSync, brotliDecompressSync, createGunzip, createGzip } from "node:zlib";
import jwt from "jsonwebtoken";
import tar from "tar-stream";

export async function handler({ text }: { text: string }) {
  const token = jwt.sign({ text }, "secret", {
    algorithm: "HS256",
    noTimestamp: true,
  });
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const signature = sign(null, Buffer.from(text), privateKey);
  return {
    token: (jwt.verify(token, "secret") as { text: string }).text,
    sha256: createHash("sha256").update(text).digest("hex"),
    verified: verify(null, Buffer.from(text), publicKey, signature),
    brotli: brotliDecompressSync(brotliCompressSync(text)).toString(),
    archived: await archived(text),
  };
}

/** Through a tar archive and gzip, and back. */
async function archived(text: string): Promise<Record<string, string>> {
  const pack = tar.pack();
  pack.entry({ name: "a.txt" }, text);
  pack.finalize();
  const extract = tar.extract();
  const found: Record<string, string> = {};
  const piping = pipeline(pack, createGzip(), createGunzip(), extract);
  for await (const entry of extract) {
    const chunks: Uint8Array[] = [];
    for await (const chunk of entry) chunks.push(chunk as Uint8Array);
    found[entry.header.name] = Buffer.concat(chunks).toString();
  }
  await piping;
  return found;
}
