import { createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import { type Random, UserError } from '../base/index.ts'
import { type ClusterId, idFrom, type NodeId, type NodeRole } from '../model/index.ts'
import { readPrivateFile, writePrivateFile } from './private-file.ts'
import { backdatedMs, type RootCa, randomSerial } from './root-ca.ts'
import { publicKeyFromPem, signingKeyFromPem } from './signing-key.ts'
import { loadX509, withNewline } from './x509.ts'

/** Names that servers and clients check each other by. Source: moby/swarmkit, ca/certificates.go. */
export const serverNames = {
  manager: 'swarm-manager',
  worker: 'swarm-worker',
  ca: 'swarm-ca',
} as const

/** A node's key and the certificate for it: what it proves with who it is. */
export interface NodeCredentials {
  readonly certificatePem: string
  /** PKCS #8. A secret: it never leaves the node. */
  readonly keyPem: string
}

/** What a node certificate says. */
export interface NodeCertificate {
  readonly nodeId: NodeId
  readonly role: NodeRole
  readonly clusterId: ClusterId
  readonly validFromMs: number
  readonly expiresAtMs: number
}

export interface NodeCertificateRequest {
  readonly root: RootCa
  readonly nodeId: NodeId
  readonly role: NodeRole
  readonly clusterId: ClusterId
  /** PEM. Of a signing request only the key is taken, and only if its owner signed it. */
  readonly key: { readonly publicKeyPem: string } | { readonly csrPem: string }
  /** IP addresses that the node may be reached at by those who check them: a manager's, for etcd's own traffic. */
  readonly addresses?: readonly string[]
  /** How long it is valid from now, in ms; never longer than the root. */
  readonly expiryMs: number
  readonly nowMs: number
}

/** Makes a node's key: ECDSA P-256. */
export function createNodeKey(): { readonly keyPem: string; readonly publicKeyPem: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return {
    keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    publicKeyPem: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
  }
}

/** Makes the request (PKCS #10, PEM) with which a node asks for a certificate for its key. */
export async function createCertificateRequest(keyPem: string): Promise<string> {
  const x509 = await loadX509()
  const key = signingKeyFromPem(keyPem)
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: ['skep node'] }],
    keys: key,
    signingAlgorithm: key.algorithm,
  })
  return withNewline(request.toString('pem'))
}

/** Signs a node's certificate; answers it as PEM. Throws `invalidInput` for a key or request that is not accepted. */
export async function issueNodeCertificate(request: NodeCertificateRequest): Promise<string> {
  const { root, nodeId, role, clusterId, addresses = [], expiryMs, nowMs } = request
  const x509 = await loadX509()
  const issuer = new x509.X509Certificate(root.certificatePem)
  const signer = signingKeyFromPem(root.keyPem)
  const publicKey = publicKeyFromPem(
    'csrPem' in request.key ? await keyOfRequest(request.key.csrPem) : request.key.publicKeyPem,
  )
  const unit = serverNames[role]
  const names = [unit, nodeId, ...(role === 'manager' ? [serverNames.ca] : [])]
  const certificate = await x509.X509CertificateGenerator.create({
    subject: [{ O: [clusterId] }, { OU: [unit] }, { CN: [nodeId] }],
    issuer: issuer.subjectName,
    publicKey,
    signingKey: signer.privateKey,
    signingAlgorithm: signer.algorithm,
    serialNumber: randomSerial(),
    notBefore: new Date(Math.max(nowMs - backdatedMs, issuer.notBefore.getTime())),
    notAfter: new Date(Math.min(nowMs + expiryMs, issuer.notAfter.getTime())),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([
        x509.ExtendedKeyUsage.serverAuth,
        x509.ExtendedKeyUsage.clientAuth,
      ]),
      new x509.SubjectAlternativeNameExtension([
        ...names.map((value) => ({ type: 'dns', value }) as const),
        ...addresses.map((value) => ({ type: 'ip', value }) as const),
      ]),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  })
  return withNewline(certificate.toString('pem'))
}

/** The key (SPKI, PEM) of a request, whose signature proves that the asker holds the private one. */
async function keyOfRequest(csrPem: string): Promise<string> {
  const x509 = await loadX509()
  const unreadable = (cause?: unknown): UserError =>
    new UserError(
      'invalidInput',
      'the certificate request can not be read, or is not signed by its key',
      {
        next: 'Make a new request (PKCS #10, PEM) with the node key.',
        cause,
      },
    )
  try {
    const request = new x509.Pkcs10CertificateRequest(csrPem)
    if (await request.verify()) return request.publicKey.toString('pem')
  } catch (cause) {
    throw unreadable(cause)
  }
  throw unreadable()
}

/** Reads what a node certificate says, without judging who signed it. Throws `invalidInput`. */
export function parseNodeCertificate(pem: string): NodeCertificate {
  let certificate: X509Certificate
  try {
    certificate = new X509Certificate(pem)
  } catch (cause) {
    throw notNode('it can not be read', cause)
  }
  const field = (name: string): string | undefined =>
    certificate.subject
      .split('\n')
      .find((line) => line.startsWith(`${name}=`))
      ?.slice(name.length + 1)
  const [nodeId, unit, clusterId] = [field('CN'), field('OU'), field('O')]
  const role: NodeRole | undefined =
    unit === serverNames.manager ? 'manager' : unit === serverNames.worker ? 'worker' : undefined
  if (!nodeId || !clusterId || !role) throw notNode('it names no node, role and cluster')
  return {
    nodeId: idFrom(nodeId),
    role,
    clusterId: idFrom(clusterId),
    validFromMs: certificate.validFromDate.getTime(),
    expiresAtMs: certificate.validToDate.getTime(),
  }
}

/** When to renew: at a random moment between 50 and 80 % of its life, so that nodes don't all come at once. */
export function decideRenewalMs(
  { validFromMs, expiresAtMs }: Pick<NodeCertificate, 'validFromMs' | 'expiresAtMs'>,
  random: Random,
): number {
  const issuedAtMs = Math.min(validFromMs + backdatedMs, expiresAtMs)
  const share = 0.5 + (random.below(300_001) / 300_000) * 0.3
  return Math.round(issuedAtMs + (expiresAtMs - issuedAtMs) * share)
}

/** Keeps key and certificate in one file (mode 0600), so that a crash can't leave one without the other. */
export async function writeNodeCredentials(
  path: string,
  credentials: NodeCredentials,
): Promise<void> {
  await writePrivateFile(path, formatNodeCredentials(path, credentials))
}

/** The text of that file. Throws `internal` when the two do not belong together. */
export function formatNodeCredentials(path: string, credentials: NodeCredentials): string {
  checkPair(path, credentials)
  return withNewline(credentials.certificatePem) + withNewline(credentials.keyPem)
}

/** Reads that file; undefined where there is none. Throws `internal` when it is not whole. */
export async function readNodeCredentials(path: string): Promise<NodeCredentials | undefined> {
  const text = await readPrivateFile(path)
  return text === undefined ? undefined : parseNodeCredentials(path, text)
}

/** Reads what `formatNodeCredentials` wrote. Throws `internal` when it is not whole. */
export function parseNodeCredentials(path: string, text: string): NodeCredentials {
  const certificatePem = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----\n/.exec(text)
  const keyPem = /-----BEGIN PRIVATE KEY-----[\s\S]*?-----END PRIVATE KEY-----\n/.exec(text)
  const credentials = { certificatePem: certificatePem?.[0] ?? '', keyPem: keyPem?.[0] ?? '' }
  checkPair(path, credentials)
  return credentials
}

function checkPair(path: string, { certificatePem, keyPem }: NodeCredentials): void {
  try {
    if (new X509Certificate(certificatePem).checkPrivateKey(createPrivateKey(keyPem))) return
  } catch {
    // Said below, without what the file holds.
  }
  throw new UserError(
    'internal',
    `${path} does not hold a certificate and the key it was made for`,
    {
      next: 'Restore it from a backup, or let the node join again.',
    },
  )
}

function notNode(why: string, cause?: unknown): UserError {
  return new UserError('invalidInput', `this is not the certificate of a node: ${why}`, {
    next: 'Use the certificate that the node got when it joined.',
    cause,
  })
}
