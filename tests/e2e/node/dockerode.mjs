// SPDX-License-Identifier: Apache-2.0
// dockerode (npm) makes, attaches to, executes in, reads and removes containers. Usage: dockerode.mjs IMAGE-TO-PULL
import Docker from 'dockerode'
import { PassThrough } from 'node:stream'
import { text, buffer } from 'node:stream/consumers'

const docker = new Docker() // DOCKER_HOST says where
const tell = (what, value) => console.log(`${what}\t${JSON.stringify(value)}`)
const image = process.argv[2]

const demultiplexed = (stream) => {
  const [out, err] = [new PassThrough(), new PassThrough()]
  docker.modem.demuxStream(stream, out, err)
  stream.on('end', () => { out.end(); err.end() })
  return Promise.all([text(out), text(err)])
}

const events = await docker.getEvents({ filters: { type: ['container'], label: ['by=dockerode'] } })
const seen = []
const gone = new Promise((resolve) => {
  let rest = ''
  events.on('data', (piece) => {
    const lines = (rest + piece).split('\n')
    rest = lines.pop()
    for (const line of lines.filter(Boolean)) {
      const { Action } = JSON.parse(line)
      seen.push(Action.split(':')[0])
      if (Action === 'destroy') resolve()
    }
  })
})

const progress = await docker.pull(image)
const steps = await new Promise((resolve, reject) =>
  docker.modem.followProgress(progress, (error, found) => (error ? reject(error) : resolve(found))))
tell('pulled', steps.at(-1).status.replace(/localhost:\d+/, 'registry'))
tell('image', (await docker.getImage(image).inspect()).Os)

// Attached before its start, over a connection that is taken over: nothing of what it says is lost.
const container = await docker.createContainer({
  Image: image, Cmd: ['sh', '-c', 'echo "colour $COLOUR"; cat; echo done >&2'], Env: ['COLOUR=green'],
  Labels: { by: 'dockerode' }, OpenStdin: true, StdinOnce: true, AttachStdin: true,
})
const stream = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true })
const said = demultiplexed(stream)
await container.start()
stream.write('from stdin\n')
stream.end()
tell('attached', await said)
tell('waited', await container.wait())
tell('logs', (await container.logs({ stdout: true, stderr: true, follow: false })).length > 0)
await container.remove()
await gone
events.destroy()
tell('events', seen)

const server = await docker.createContainer({ Image: image, Cmd: ['sleep', '1000'], HostConfig: { Init: true } })
await server.start()
const process_ = await server.exec({
  Cmd: ['sh', '-c', 'read line; echo "got $line"; echo wrong >&2; exit 4'], AttachStdin: true, AttachStdout: true,
  AttachStderr: true,
})
const input = await process_.start({ hijack: true, stdin: true })
const answered = demultiplexed(input)
input.write('a line\n')
tell('exec', await answered)
const ended = await process_.inspect()
tell('exit code', [ended.Running, ended.ExitCode])

// Archives: what goes in comes out, byte by byte.
const name = Buffer.alloc(512)
name.write('file'); name.write('0000644', 100); name.write('0000000', 108); name.write('0000000', 116)
name.write('00000000005', 124); name.write('00000000000', 136); name.write('        ', 148); name.write('0', 156)
name.write('ustar\x0000', 257, 'latin1')
name.write(name.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, '0') + '\0 ', 148)
const archive = Buffer.concat([name, Buffer.from('bytes'.padEnd(512, '\0')), Buffer.alloc(1024)])
await server.putArchive(archive, { path: '/tmp' })
const back = await buffer(await server.getArchive({ path: '/tmp/file' }))
tell('archive', back.subarray(512, 517).toString())
const info = await server.infoArchive({ path: '/tmp/file' })
tell('stat', info.statusCode ?? 200)

const usage = await server.stats({ stream: false })
tell('stats', usage.memory_stats.usage > 0 && usage.pids_stats.current > 0)
tell('listed', (await docker.listContainers()).map((c) => [c.State, c.Command]))
tell('ended', await server.stop({ t: 0 }).then(() => server.inspect()).then((i) => i.State.ExitCode))
await server.remove({ v: true })
tell('missing', await docker.getContainer(server.id).inspect().catch((error) => [error.statusCode, error.reason]))
await docker.getImage(image).remove({ force: true })
tell('images', (await docker.listImages({ filters: { reference: [image] } })).length)
