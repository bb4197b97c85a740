import { argon2id, blake3 } from "hash-wasm";
import initSqlJs from "sql.js";

// hash-wasm has its modules in its code, sql.js has a file beside it: build.include ships that.
const wasmBinary = await Deno.readFile(
  new URL("./data/sql-wasm.wasm", import.meta.url),
);
const sql = await initSqlJs({ wasmBinary: wasmBinary.buffer });

export async function handler({ text }: { text: string }) {
  const database = new sql.Database();
  database.run("CREATE TABLE words (word TEXT)");
  database.run("INSERT INTO words VALUES (?), (?)", [text, text.toUpperCase()]);
  const [{ values }] = database.exec("SELECT word FROM words ORDER BY word");
  const options = {
    parallelism: 1,
    iterations: 2,
    memorySize: 64,
    hashLength: 16,
  };
  return {
    blake3: await blake3(text),
    argon2: await argon2id({
      ...options,
      password: text,
      salt: "saltsaltsalt",
      outputType: "hex",
    }),
    words: values.flat(),
  };
}
