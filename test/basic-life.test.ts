import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { dockerClients, eventually, type Output, run, startDaemon } from './support/daemon.ts'
import { containersOf, onEngine, untilRunning } from './support/look.ts'

const stack = `
version: '3.8'
services:
  web:
    image: whoami:v1
    deploy: { replicas: 2 }
    networks: [front]
networks:
  front: {}
`

describe('the basic life of services and stacks', () => {
  for (const client of dockerClients()) {
    test(`with ${client}`, async () => {
      const version = await run(client, ['--version'])
      assert.equal(version.code, 0)
      await using daemon = await startDaemon({ init: false })
      const docker = (...args: string[]): Promise<Output> =>
        daemon.dockerWith(client, undefined, ...args)
      const ok = async (...args: string[]): Promise<string> => {
        const output = await docker(...args)
        assert.equal(output.code, 0, `docker ${args.join(' ')}: ${output.stdout}${output.stderr}`)
        return output.stdout.trim()
      }

      const init = await ok('swarm', 'init', '--advertise-addr', '127.0.0.1')
      assert.match(init, /Swarm initialized: current node \([0-9a-z]{25}\) is now a manager\./)
      assert.match(
        init,
        /docker swarm join --token SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25} 127\.0\.0\.1:\d+/,
      )
      await eventually('the node to be ready', async () =>
        /\*\s+\S+\s+Ready\s+Active\s+Leader/.test(await ok('node', 'ls')),
      )

      const id = await ok(
        'service',
        'create',
        '--quiet',
        '--name',
        'web',
        '--replicas',
        '2',
        'whoami:v1',
      )
      assert.match(id, /^[0-9a-z]{25}$/m)
      assert.match(await ok('service', 'ls'), /web\s+replicated\s+2\/2\s+whoami:v1/)
      assert.match(await ok('service', 'ps', 'web'), /web\.1\s+whoami:v1\s+\S+\s+Running\s+Running/)

      await ok('service', 'scale', '-d', 'web=3')
      const before = await untilRunning(daemon, 'web', 3)
      await ok(
        'service',
        'update',
        '-d',
        '--image',
        'whoami:v2',
        '--update-parallelism',
        '0',
        '--update-monitor',
        '300ms',
        'web',
      )
      await untilRunning(daemon, 'web', 3, { image: 'whoami:v2' })
      await eventually('the update to complete', async () =>
        (await ok('service', 'inspect', '--pretty', 'web')).includes('completed'),
      )
      await ok('service', 'rollback', '-d', 'web')
      const after = await untilRunning(daemon, 'web', 3, { image: 'whoami:v1' })
      assert.equal(new Set([...before, ...after].map((task) => task.id)).size, 6)
      assert.match(await ok('service', 'ps', 'web'), /\\_ web\.1\s+whoami:v2\s+\S+\s+Shutdown/)

      const [container = ''] = await containersOf(daemon, 'web')
      assert.match(await ok('ps', '-a', '--no-trunc'), new RegExp(container))
      assert.match(await ok('service', 'rm', 'web'), /^web$/)
      await eventually('the containers to be gone', async () => {
        const left = await onEngine(
          'ps',
          '-aq',
          '--filter',
          `label=com.docker.swarm.service.id=${id}`,
        )
        return left === ''
      })

      const file = join(daemon.folder, 'stack.yml')
      await writeFile(file, stack)
      await ok('stack', 'deploy', '-c', file, 'e2elife')
      await untilRunning(daemon, 'e2elife_web', 2)
      assert.match(await ok('stack', 'ls'), /e2elife\s+1/)
      assert.match(await ok('stack', 'services', 'e2elife'), /e2elife_web\s+replicated\s+2\/2/)
      assert.match(await ok('stack', 'ps', 'e2elife'), /e2elife_web\.2/)
      await ok('stack', 'rm', 'e2elife')
      await eventually(
        'the network to be gone',
        async () => !(await ok('network', 'ls')).includes('e2elife'),
      )

      const refused = await docker('swarm', 'leave')
      assert.notEqual(refused.code, 0)
      assert.match(refused.stderr, /--force/)
      assert.match(await ok('swarm', 'leave', '--force'), /Node left the swarm\./)
      assert.match(await ok('info'), /Swarm: inactive/)
    })
  }
})
