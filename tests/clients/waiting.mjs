// ioredis and node-redis connect to a server that still loads its counters, wait for it as they do by themselves, and count.
//
//   node waiting.mjs DIRECTORY PORT
//
// DIRECTORY holds `node_modules` with `redis` and `ioredis`. Run by tests/clients/run, which lets the server finish once both
// have been put off.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import path from 'node:path';

const [directory, port] = process.argv.slice(2);
const require = createRequire(path.join(path.resolve(directory), 'index.js'));

/** Asks INFO how long loading takes, and counts when it is over. */
async function ioredis() {
  const Redis = require('ioredis').default ?? require('ioredis');
  const client = new Redis({ port: Number(port), host: '127.0.0.1', connectionName: 'ioredis-waits' });
  assert.equal(String(await client.incr('waiting:ioredis')), '1');
  assert.equal(await client.quit(), 'OK');
}

/** Is told so by each command, on a connection that lives on. */
async function nodeRedis() {
  const { createClient } = require('redis');
  const client = createClient({ url: `redis://127.0.0.1:${port}`, name: 'node-redis-waits' });
  await client.on('error', (error) => { throw error; }).connect();
  const id = await client.sendCommand(['CLIENT', 'ID']);
  let refusals = 0;
  for (;;) {
    try {
      assert.equal(String(await client.incr('waiting:node-redis')), '1');
      break;
    } catch (error) {
      assert.match(error.message, /^LOADING /);
      refusals += 1;
      await new Promise((resolve) => { setTimeout(resolve, 20); });
    }
  }
  assert.ok(refusals > 0);
  assert.deepEqual(await client.sendCommand(['CLIENT', 'ID']), id);
  await client.close();
}

await Promise.all([ioredis(), nodeRedis()]);
console.log('node-redis and ioredis wait for a server that loads');
