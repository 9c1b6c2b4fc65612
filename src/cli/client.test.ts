import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { promisify } from 'node:util'
import { UserError } from '../base/index.ts'
import { openClient, parseFilters } from './client.ts'
import { realIo } from './io.ts'

const run = promisify(execFile)
const hasOpenssl = await run('openssl', ['version']).then(
  () => true,
  () => false,
)

describe('a daemon behind TLS', {
  skip: !hasOpenssl && 'there is no openssl to make certificates',
}, () => {
  let directory: string
  let host: string
  let close: () => void
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'skep-tls-'))
    const openssl = (...args: string[]) => run('openssl', args, { cwd: directory })
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
    await openssl(
      'req',
      '-x509',
      ...key,
      '-keyout',
      'ca-key.pem',
      '-out',
      'ca.pem',
      '-subj',
      '/CN=ca',
    )
    await openssl('req', ...key, '-keyout', 'key.pem', '-out', 'csr.pem', '-subj', '/CN=both')
    await writeFile(join(directory, 'extensions'), 'subjectAltName=IP:127.0.0.1')
    const signed = ['-in', 'csr.pem', '-out', 'cert.pem', '-extfile', 'extensions']
    await openssl(
      'x509',
      '-req',
      '-CA',
      'ca.pem',
      '-CAkey',
      'ca-key.pem',
      '-CAcreateserial',
      ...signed,
    )
    const [ca, cert, privateKey] = await Promise.all(
      ['ca.pem', 'cert.pem', 'key.pem'].map((name) => readFile(join(directory, name))),
    )
    const server = createServer(
      { ca, cert, key: privateKey, requestCert: true, rejectUnauthorized: true },
      (_request, response) => response.end('{"Swarm":{}}'),
    )
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    host = `tcp://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`
    close = () => {
      server.closeAllConnections()
      server.close()
    }
  })
  after(async () => {
    close()
    await rm(directory, { recursive: true, force: true })
  })

  const open = (env: Record<string, string>) =>
    openClient({ io: { ...realIo(), env }, host: () => host })

  test('lets in who bears a certificate, named by DOCKER_CERT_PATH', async () => {
    const client = await open({ DOCKER_CERT_PATH: directory })
    assert.deepEqual(await client.call('/info'), { Swarm: {} })
  })

  test('says what is missing without one', async () => {
    const client = await open({})
    await assert.rejects(client.call('/info'), /the connection to tcp:.* broke/)
    await assert.rejects(
      open({ DOCKER_CERT_PATH: '/nowhere' }),
      /cannot read \w+\.pem of \/nowhere/,
    )
  })
})

test('filters are read as key=value, several values of a key together', () => {
  assert.deepEqual(parseFilters(['label=a=b', 'LABEL=c', 'name=x']), {
    label: ['a=b', 'c'],
    name: ['x'],
  })
  assert.throws(() => parseFilters(['=x']), UserError)
})
