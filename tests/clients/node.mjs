// node-redis and ioredis count on the server at a port: with their defaults, and with each protocol they can be asked for.
//
//   node node.mjs DIRECTORY PORT
//
// DIRECTORY holds `node_modules` with `redis` and `ioredis`. Run by tests/clients/run.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import path from 'node:path';

const [directory, port] = process.argv.slice(2);
const require = createRequire(path.join(path.resolve(directory), 'index.js'));

// Messages come once a second at most.
const MESSAGE_LIMIT_MS = 10_000;

/** The promise, or an error when it takes too long. */
function within(promise, what) {
  const limit = new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`no ${what}`)), MESSAGE_LIMIT_MS).unref();
  });
  return Promise.race([promise, limit]);
}

async function nodeRedis(label, options) {
  const { createClient } = require('redis');
  const url = `redis://127.0.0.1:${port}`;
  const client = await createClient({ url, ...options }).on('error', (error) => { throw error; }).connect();
  const name = `node-redis:${label}`;
  assert.equal(String(await client.incr(name)), '1');
  assert.equal(String(await client.incrBy(name, 41)), '42');
  assert.equal(Number(await client.incrByFloat(name, 0.5)), 42.5);
  assert.equal(await client.get(name), '42.5');
  assert.deepEqual(await client.mGet([name, 'never counted']), ['42.5', '0']);
  const together = await Promise.all(Array.from({ length: 1000 }, () => client.incr(`${name}:views`)));
  assert.deepEqual(together.map(Number), Array.from({ length: 1000 }, (_, index) => index + 1));
  await assert.rejects(client.sendCommand(['INCRBY', name, 'many']), /value is not a valid float/);
  const seen = [];
  for await (const keys of client.scanIterator({ MATCH: `${name}*` })) seen.push(...[keys].flat());
  assert.deepEqual(seen.sort(), [name, `${name}:views`]);

  const subscriber = await client.duplicate().connect();
  const heard = new Promise((resolve) => {
    subscriber.subscribe(`${name}:plays`, (message) => resolve(message)).catch(resolve);
  });
  // The subscription stands before the count: what is subscribed later also hears of a counter that is not 0.
  await client.incrBy(`${name}:plays`, 7);
  assert.equal(await within(heard, 'message'), '7');
  await subscriber.unsubscribe(`${name}:plays`);
  // Over RESP2 this client answers a buffer.
  assert.equal(String(await subscriber.ping()), 'PONG');
  await subscriber.close();
  await client.close();
}

async function ioredis(label, options) {
  const Redis = require('ioredis').default ?? require('ioredis');
  const client = new Redis({ port: Number(port), host: '127.0.0.1', ...options });
  await within(new Promise((resolve, reject) => {
    client.once('ready', resolve);
    client.once('error', reject);
  }), 'readiness');
  const name = `ioredis:${label}`;
  assert.equal(String(await client.incr(name)), '1');
  assert.equal(String(await client.incrby(name, 41)), '42');
  assert.equal(await client.get(name), '42');
  const pipeline = client.pipeline();
  for (let count = 0; count < 1000; count += 1) pipeline.incr(`${name}:views`);
  const replies = await pipeline.exec();
  assert.deepEqual(replies.map(([error, value]) => [error, Number(value)]),
    Array.from({ length: 1000 }, (_, index) => [null, index + 1]));
  await assert.rejects(client.incrby(name, 'many'), /value is not a valid float/);

  const subscriber = client.duplicate();
  const heard = new Promise((resolve) => {
    subscriber.on('message', (channel, message) => resolve([channel, message]));
  });
  await subscriber.subscribe(`${name}:plays`);
  await client.incrby(`${name}:plays`, 7);
  assert.deepEqual(await within(heard, 'message'), [`${name}:plays`, '7']);
  subscriber.disconnect();
  assert.equal(await client.quit(), 'OK');
}

for (const [label, options] of [['default', {}], ['resp2', { RESP: 2 }], ['resp3', { RESP: 3 }]]) {
  await nodeRedis(label, options);
}
await ioredis('default', {});
await ioredis('no-ready-check', { enableReadyCheck: false });
console.log(`node-redis ${require('redis/package.json').version}, ioredis ${require('ioredis/package.json').version}`);
