// SPDX-License-Identifier: Apache-2.0
// testcontainers (npm) as programs' tests use it: servers start, are waited for, are asked, and go.
// Usage: testcontainers.mjs IMAGE-WITH-POSTGRES-AND-REDIS IMAGE-WITH-NGINX
import net from 'node:net'
import { GenericContainer, Wait } from 'testcontainers'

const [databases, nginx] = process.argv.slice(2)
const tell = (what, value) => console.log(`${what}\t${JSON.stringify(value)}`)

const asked = (host, port, words) => new Promise((resolve, reject) => {
  const socket = net.connect(port, host, () => socket.write(words))
  socket.on('data', (data) => { resolve(data.toString().trim()); socket.destroy() })
  socket.on('error', reject)
})

const redis = await new GenericContainer(databases)
  .withCommand(['redis-server', '--protected-mode', 'no'])
  .withEnvironment({ COLOUR: 'green' })
  .withCopyContentToContainer([{ content: 'copied', target: '/srv/copied' }])
  .withExposedPorts(6379)
  .withWaitStrategy(Wait.forAll([Wait.forListeningPorts(), Wait.forLogMessage('Ready to accept connections')]))
  .start()
tell('redis', await asked(redis.getHost(), redis.getMappedPort(6379), 'PING\r\n'))
for (const command of [['redis-cli', 'ping'], ['sh', '-c', 'echo $COLOUR; exit 3'], ['cat', '/srv/copied']]) {
  const { output, exitCode } = await redis.exec(command)
  tell('exec', [output.trim(), exitCode])
}
await redis.restart()
tell('again', await asked(redis.getHost(), redis.getMappedPort(6379), 'PING\r\n'))
await redis.stop()

const postgres = await new GenericContainer(databases)
  .withCommand(['start-postgres'])
  .withUser('postgres')
  .withHealthCheck({ test: ['CMD', 'psql', '-h', '127.0.0.1', '-c', 'SELECT 1'], interval: 2000, timeout: 20000, retries: 1000 })
  .withWaitStrategy(Wait.forHealthCheck())
  .withStartupTimeout(240000) // an emulated processor makes the database
  .start()
tell('postgres', (await postgres.exec(['psql', '-h', '127.0.0.1', '-Atc', 'SELECT 6 * 7'])).output.trim())
await postgres.stop()

const web = await new GenericContainer(nginx)
  .withExposedPorts(80)
  .withWaitStrategy(Wait.forHttp('/', 80))
  .start()
tell('nginx', (await (await fetch(`http://${web.getHost()}:${web.getMappedPort(80)}/`)).text()).trim())
await web.stop()
tell('over', true)
process.exit(0)
