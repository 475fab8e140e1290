// SPDX-License-Identifier: Apache-2.0
// testcontainers (npm) builds an image, in both ways that dockerd has, and starts it. Usage: built.mjs CONTEXT
import { GenericContainer, Wait } from 'testcontainers'

const [context] = process.argv.slice(2)
const tell = (what, value) => console.log(`${what}\t${JSON.stringify(value)}`)

for (const kit of [false, true]) {
  const described = GenericContainer.fromDockerfile(context).withBuildArgs({ COLOUR: kit ? 'green' : 'red' })
  const image = await (kit ? described.withBuildkit() : described).build(`built:${kit}`, { deleteOnExit: false })
  const container = await image.withWaitStrategy(Wait.forLogMessage('begun')).start()
  tell(kit ? 'buildkit' : 'classic', (await container.exec(['cat', '/colour', '/text'])).output)
  await container.stop()
}
process.exit(0)
