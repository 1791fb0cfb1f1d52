// mqtt.js as publisher or subscriber: npm_program.mjs FOLDER, the one with node_modules.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const mqtt = createRequire(`${process.argv[2]}/package.json`)('mqtt')
const lines = createInterface({ input: process.stdin })
const job = JSON.parse((await lines[Symbol.asyncIterator]().next()).value)
lines.close()

const scheme = { tcp: 'mqtt', tls: 'mqtts', ws: 'ws', wss: 'wss' }[job.transport]
const client = await mqtt.connectAsync(`${scheme}://${job.host}:${job.port}${scheme.startsWith('ws') ? job.path : ''}`, {
  clientId: job.id,
  protocolVersion: job.version,
  ca: job.ca ? readFileSync(job.ca) : undefined,
  reconnectPeriod: 0
})
if (job.role === 'subscribe') {
  const received = []
  const done = new Promise((resolve) => {
    client.on('message', (topic, payload, packet) => {
      received.push([topic, payload.toString(), packet.qos, packet.retain])
      if (received.length === job.count) resolve()
    })
  })
  await client.subscribeAsync(job.topic, { qos: Math.max(...job.qos) })
  console.log('ready')
  let timer
  await Promise.race([done, new Promise((resolve) => { timer = setTimeout(resolve, job.timeout * 1000) })])
  clearTimeout(timer)
  console.log(JSON.stringify({ received }))
} else {
  const pending = []
  for (const qos of job.qos) {
    for (const text of job.payloads) pending.push(client.publishAsync(job.topic, text, { qos }))
  }
  await Promise.all(pending)
  console.log(JSON.stringify({ published: pending.length }))
}
await client.endAsync()
