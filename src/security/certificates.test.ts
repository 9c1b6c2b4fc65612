import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createPublicKey, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { before, describe, type TestContext, test } from 'node:test'
import { connect, createServer, type TLSSocket } from 'node:tls'
import { idFrom } from '../model/index.ts'
import {
  createCertificateRequest,
  createNodeKey,
  createRootCa,
  decideRenewalMs,
  describeRoot,
  issueNodeCertificate,
  parseNodeCertificate,
  type RootCa,
  readNodeCredentials,
  rootFromPem,
  writeNodeCredentials,
} from './index.ts'

const nowMs = Date.now()
const dayMs = 86_400_000
const nodeId = idFrom<'node'>('7nf1y4hbgl9d1lrmljzm8ptzt')
const clusterId = idFrom<'cluster'>('xzv4lf3v1hv6eqhxq7gmdyz5d')
const hasOpenssl = existsSync('/usr/bin/openssl')
const noOpenssl = hasOpenssl ? false : 'no openssl on this machine'

function directoryFor(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'skep-certificates-'))
  t.after(() => rmSync(directory, { recursive: true }))
  return directory
}

function openssl(...args: string[]): string {
  return execFileSync('/usr/bin/openssl', args, { encoding: 'utf8', stdio: 'pipe' })
}

describe('certificates', () => {
  let root: RootCa
  before(async () => {
    root = await createRootCa(nowMs)
  })

  async function issue(
    role: 'manager' | 'worker',
    options: { expiryMs?: number; of?: RootCa } = {},
  ) {
    const { keyPem, publicKeyPem } = createNodeKey()
    const certificatePem = await issueNodeCertificate({
      root: options.of ?? root,
      nodeId,
      role,
      clusterId,
      key: { publicKeyPem },
      expiryMs: options.expiryMs ?? 90 * dayMs,
      nowMs,
    })
    return { certificatePem, keyPem }
  }

  test('OpenSSL accepts them in strict mode, for servers and clients', {
    skip: noOpenssl,
  }, async (t) => {
    const directory = directoryFor(t)
    const [ca, leaf] = [join(directory, 'ca.pem'), join(directory, 'node.pem')]
    writeFileSync(ca, root.certificatePem)
    assert.match(openssl('verify', '-x509_strict', '-CAfile', ca, ca), /OK/)
    for (const role of ['manager', 'worker'] as const) {
      writeFileSync(leaf, (await issue(role)).certificatePem)
      for (const purpose of ['sslserver', 'sslclient']) {
        const checks = ['-x509_strict', '-purpose', purpose, '-verify_hostname', `swarm-${role}`]
        const verdict = openssl('verify', ...checks, '-CAfile', ca, leaf)
        assert.match(verdict, /OK/)
      }
      const text = openssl('x509', '-in', leaf, '-noout', '-text')
      assert.match(text, /Subject Key Identifier/)
      assert.match(text, /Authority Key Identifier/)
    }
    const other = await createRootCa(nowMs)
    writeFileSync(ca, other.certificatePem)
    assert.throws(() => openssl('verify', '-x509_strict', '-CAfile', ca, leaf))
  })

  test('two roots have names of their own', async () => {
    const other = await createRootCa(nowMs)
    const subject = (pem: string): string => new X509Certificate(pem).subject
    assert.match(subject(root.certificatePem), /^CN=swarm-ca/)
    assert.notEqual(subject(root.certificatePem), subject(other.certificatePem))
    const years = new X509Certificate(root.certificatePem).validToDate.getTime() - nowMs
    assert.ok(Math.abs(years / (365 * dayMs) - 20) < 0.01)
  })

  test('a node certificate says who the node is', async () => {
    const { certificatePem } = await issue('manager')
    const found = parseNodeCertificate(certificatePem)
    assert.deepEqual(
      { nodeId: found.nodeId, role: found.role, clusterId: found.clusterId },
      { nodeId, role: 'manager', clusterId },
    )
    assert.ok(Math.abs(found.expiresAtMs - nowMs - 90 * dayMs) <= 1000)
    assert.ok(Math.abs(nowMs - found.validFromMs - 3_600_000) <= 1000)
    assert.equal(
      new X509Certificate(certificatePem).subjectAltName,
      `DNS:swarm-manager, DNS:${nodeId}, DNS:swarm-ca`,
    )
    const worker = new X509Certificate((await issue('worker')).certificatePem)
    assert.equal(worker.subjectAltName, `DNS:swarm-worker, DNS:${nodeId}`)
    assert.throws(() => parseNodeCertificate(root.certificatePem), { code: 'invalidInput' })
    assert.throws(() => parseNodeCertificate('x'), { code: 'invalidInput' })
  })

  test('no node certificate outlives its root', async () => {
    const { certificatePem } = await issue('worker', { expiryMs: 100 * 365 * dayMs })
    assert.equal(
      new X509Certificate(certificatePem).validTo,
      new X509Certificate(root.certificatePem).validTo,
    )
  })

  test('a request is answered with a certificate for its key alone', async () => {
    const { keyPem, publicKeyPem } = createNodeKey()
    const csrPem = await createCertificateRequest(keyPem)
    const request = { root, nodeId, role: 'worker', clusterId, expiryMs: dayMs, nowMs } as const
    const certificatePem = await issueNodeCertificate({ ...request, key: { csrPem } })
    const certificate = new X509Certificate(certificatePem)
    assert.ok(certificate.publicKey.equals(createPublicKey(publicKeyPem)))
    assert.equal(parseNodeCertificate(certificatePem).nodeId, nodeId, 'not the name it asked for')
    const lines = csrPem.split('\n')
    const at = lines.length - 4
    lines[at] = (lines[at] ?? '').split('').reverse().join('')
    for (const bad of ['', 'x', lines.join('\n')]) {
      await assert.rejects(issueNodeCertificate({ ...request, key: { csrPem: bad } }), {
        code: 'invalidInput',
      })
    }
    for (const bad of ['', publicKeyPem.slice(0, 60)]) {
      await assert.rejects(issueNodeCertificate({ ...request, key: { publicKeyPem: bad } }), {
        code: 'invalidInput',
      })
    }
  })

  test('Docker gets the issuer as DER', { skip: noOpenssl }, async (t) => {
    const directory = directoryFor(t)
    const described = await describeRoot(root.certificatePem)
    assert.equal(described.certificatePem, root.certificatePem)
    const key = createPublicKey({
      key: Buffer.from(described.issuerPublicKey, 'base64'),
      format: 'der',
      type: 'spki',
    })
    assert.ok(key.equals(new X509Certificate(root.certificatePem).publicKey))
    const name = join(directory, 'name.der')
    writeFileSync(name, Buffer.from(described.issuerSubject, 'base64'))
    const parsed = openssl('asn1parse', '-inform', 'DER', '-in', name)
    assert.match(parsed, /commonName[\s\S]*swarm-ca/)
  })

  test('a root that a person made is taken, or refused with the reason', {
    skip: noOpenssl,
  }, async (t) => {
    const directory = directoryFor(t)
    const make = (name: string, ...args: string[]) => {
      const [key, cert] = [join(directory, `${name}.key`), join(directory, `${name}.pem`)]
      const files = ['-keyout', key, '-out', cert]
      openssl('req', '-x509', '-nodes', ...files, '-subj', `/CN=${name}`, ...args)
      return {
        key: execFileSync('cat', [key], { encoding: 'utf8' }),
        cert: execFileSync('cat', [cert], { encoding: 'utf8' }),
      }
    }
    const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384']
    const good = [
      make('ec', ...ec, '-days', '800'),
      make('rsa', '-newkey', 'rsa:2048', '-days', '800'),
    ]
    for (const { cert, key } of good) {
      const taken = await rootFromPem(cert, key, Date.now())
      const { certificatePem } = await issue('worker', { of: taken })
      const [ca, leaf] = [join(directory, 'ca.pem'), join(directory, 'leaf.pem')]
      writeFileSync(ca, taken.certificatePem)
      writeFileSync(leaf, certificatePem)
      assert.match(openssl('verify', '-CAfile', ca, leaf), /OK/)
    }
    const [first, second] = good
    assert.ok(first && second)
    const short = make('short', ...ec, '-days', '30')
    const plain = make(
      'plain',
      ...ec,
      '-days',
      '800',
      '-addext',
      'basicConstraints=critical,CA:FALSE',
    )
    const cases = [
      { cert: first.cert, key: second.key, why: /private key is not the one/ },
      { cert: first.cert + second.cert, key: first.key, why: /there are 2 certificates/ },
      { cert: '', key: first.key, why: /there are 0 certificates/ },
      { cert: first.cert, key: 'x', why: /private key can not be read/ },
      { cert: first.cert.replace(/\n.{64}\n/, '\n'), key: first.key, why: /can not be read/ },
      { cert: short.cert, key: short.key, why: /less than a year left/ },
      { cert: plain.cert, key: plain.key, why: /not a CA certificate/ },
    ]
    for (const { cert, key, why } of cases) {
      await assert.rejects(rootFromPem(cert, key, Date.now()), {
        code: 'invalidInput',
        message: why,
      })
    }
  })

  test('two nodes talk over TLS, and a stranger is refused', async () => {
    const manager = await issue('manager')
    const server = createServer({
      cert: manager.certificatePem,
      key: manager.keyPem,
      ca: root.certificatePem,
      requestCert: true,
      rejectUnauthorized: true,
    })
    server.on('secureConnection', (socket: TLSSocket) => {
      socket.on('error', () => {})
      socket.end('hello')
    })
    server.on('tlsClientError', () => {})
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    assert.ok(address !== null && typeof address === 'object')
    const call = async (
      credentials: { certificatePem: string; keyPem: string },
      servername: string,
    ) => {
      const socket = connect({
        host: '127.0.0.1',
        port: address.port,
        servername,
        ca: root.certificatePem,
        cert: credentials.certificatePem,
        key: credentials.keyPem,
      })
      try {
        const chunks: Buffer[] = []
        for await (const chunk of socket) chunks.push(chunk)
        return Buffer.concat(chunks).toString()
      } catch (error) {
        return error instanceof Error && 'code' in error ? String(error.code) : 'failed'
      }
    }
    const worker = await issue('worker')
    const stranger = await issue('worker', { of: await createRootCa(nowMs) })
    assert.equal(await call(worker, 'swarm-manager'), 'hello')
    assert.equal(await call(worker, 'swarm-ca'), 'hello')
    assert.notEqual(await call(worker, 'swarm-worker'), 'hello')
    assert.notEqual(await call(stranger, 'swarm-manager'), 'hello')
    server.close()
  })

  test('key and certificate are kept together, for their owner alone', async (t) => {
    const path = join(directoryFor(t), 'node.pem')
    assert.equal(await readNodeCredentials(path), undefined)
    const credentials = await issue('worker')
    await writeNodeCredentials(path, credentials)
    assert.equal(statSync(path).mode & 0o777, 0o600)
    assert.deepEqual(await readNodeCredentials(path), credentials)
    const { keyPem } = await issue('worker')
    await assert.rejects(writeNodeCredentials(path, { ...credentials, keyPem }), {
      code: 'internal',
    })
    writeFileSync(path, credentials.certificatePem)
    await assert.rejects(readNodeCredentials(path), { code: 'internal' })
  })

  test('renewal comes between 50 and 80 % of the life', () => {
    const life = { validFromMs: 0, expiresAtMs: 3_600_000 + 1000 * dayMs }
    const at = (number: number) =>
      (decideRenewalMs(life, { below: () => number }) - 3_600_000) / dayMs
    assert.equal(at(0), 500)
    assert.equal(at(150_000), 650)
    assert.equal(at(300_000), 800)
  })
})
