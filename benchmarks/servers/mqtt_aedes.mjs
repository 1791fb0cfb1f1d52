// aedes on one port, or on several: mqtt_aedes.mjs FOLDER KIND PORT [KIND PORT ...], kind: tcp, tls or ws.
// The folder is that of node_modules; of tls, CERT and KEY are in the environment. Prints "ready" when it listens.

import { readFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { pathToFileURL } from 'node:url'

const [folder, ...listeners] = process.argv.slice(2)
const require = createRequire(`${folder}/package.json`)
// Releases from 1.0 on cannot be required; those before have a default export only.
const { Aedes, default: Before } = await import(pathToFileURL(require.resolve('aedes')))
const options = { concurrency: 1000, maxClientsIdLength: 256 }
const broker = await (Aedes ?? Before).createBroker(options)

async function makeServer (kind) {
  if (kind === 'tcp') return createServer({ noDelay: true }, broker.handle)
  if (kind === 'tls') {
    return createTlsServer({ cert: readFileSync(process.env.CERT), key: readFileSync(process.env.KEY) }, broker.handle)
  }
  const { WebSocketServer, createWebSocketStream } = require('ws')
  const http = createHttpServer()
  const server = new WebSocketServer({ server: http, handleProtocols: () => 'mqtt' })
  server.on('connection', (socket, request) => {
    const stream = createWebSocketStream(socket)
    stream.on('error', () => {})
    broker.handle(stream, request)
  })
  return http
}

for (let i = 0; i < listeners.length; i += 2) {
  const server = await makeServer(listeners[i])
  await new Promise((resolve) => server.listen(Number(listeners[i + 1]), '127.0.0.1', 4096, resolve))
  console.log(`${listeners[i]} ${server.address().port}`)
}
console.log('ready')
