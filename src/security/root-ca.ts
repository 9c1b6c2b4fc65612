import { generateKeyPairSync, randomBytes, X509Certificate } from 'node:crypto'
import { UserError } from '../base/index.ts'
import { crossCertificatesMax } from '../model/index.ts'
import { signingKeyFromPem } from './signing-key.ts'
import { loadX509, withNewline } from './x509.ts'

/** What signs the certificates of a cluster's nodes. */
export interface RootCa {
  readonly certificatePem: string
  /** PKCS #8. A secret: keep it sealed. */
  readonly keyPem: string
}

/** A root as Docker's `TLSInfo` tells of it: base64 of DER, the subject as a Name, the key as SubjectPublicKeyInfo. */
export interface RootDescription {
  readonly certificatePem: string
  readonly issuerSubject: string
  readonly issuerPublicKey: string
}

const dayMs = 86_400_000
const rootLifeMs = 20 * 365 * dayMs
/** What a root that is brought in must still have. Source: moby/swarmkit, ca/certificates.go. */
const rootLifeLeftMinMs = 365 * dayMs
/** Certificates are valid from this long before they are made, for hosts whose clock is behind. */
export const backdatedMs = 3_600_000

/** Makes a root: ECDSA P-256, 20 years, with a name of its own, so that chains of an old and a new root stay apart. */
export async function createRootCa(nowMs: number): Promise<RootCa> {
  const x509 = await loadX509()
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
  const key = signingKeyFromPem(keyPem)
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [`swarm-ca-${randomBytes(4).toString('hex')}`] }],
    keys: key,
    signingAlgorithm: key.algorithm,
    serialNumber: randomSerial(),
    notBefore: new Date(nowMs - backdatedMs),
    notAfter: new Date(nowMs + rootLifeMs),
    extensions: [
      // One step for each rotation that a node may have missed, see `crossSign`.
      new x509.BasicConstraintsExtension(true, crossCertificatesMax, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
        true,
      ),
      await x509.SubjectKeyIdentifierExtension.create(key.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(key.publicKey),
    ],
  })
  return { certificatePem: withNewline(certificate.toString('pem')), keyPem }
}

/**
 * The new root's name and key under the old root's signature (PEM): whoever trusts only the old one can follow it to
 * certificates of the new one.
 */
export async function crossSign(newRootPem: string, old: RootCa): Promise<string> {
  const x509 = await loadX509()
  const root = new x509.X509Certificate(newRootPem)
  const issuer = new x509.X509Certificate(old.certificatePem)
  const signer = signingKeyFromPem(old.keyPem)
  const certificate = await x509.X509CertificateGenerator.create({
    subject: root.subjectName,
    issuer: issuer.subjectName,
    publicKey: root.publicKey,
    signingKey: signer.privateKey,
    signingAlgorithm: signer.algorithm,
    serialNumber: randomSerial(),
    notBefore: new Date(Math.max(root.notBefore.getTime(), issuer.notBefore.getTime())),
    notAfter: new Date(Math.min(root.notAfter.getTime(), issuer.notAfter.getTime())),
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
        true,
      ),
      await x509.SubjectKeyIdentifierExtension.create(root.publicKey),
      // Without it OpenSSL takes the certificate for a self-signed one.
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  })
  return withNewline(certificate.toString('pem'))
}

/** Takes a root that a person made. Throws `invalidInput` with what is wrong with it. */
export async function rootFromPem(
  certificatePem: string,
  keyPem: string,
  nowMs: number,
): Promise<RootCa> {
  const certificate = parseRoot(certificatePem)
  const key = signingKeyFromPem(keyPem)
  const spki = Buffer.from(await crypto.subtle.exportKey('spki', key.publicKey))
  if (!spki.equals(certificate.publicKey.export({ type: 'spki', format: 'der' }))) {
    throw notRoot('the private key is not the one of the certificate')
  }
  if (!certificate.ca) throw notRoot('it is not a CA certificate')
  if (!certificate.checkIssued(certificate) || !certificate.verify(certificate.publicKey)) {
    throw notRoot('it is not signed by itself')
  }
  if (certificate.validFromDate.getTime() > nowMs) throw notRoot('it is not valid yet')
  if (certificate.validToDate.getTime() < nowMs + rootLifeLeftMinMs) {
    throw notRoot('it has less than a year left')
  }
  return { certificatePem: withNewline(certificate.toString()), keyPem }
}

/** Tells of a root. Throws `invalidInput` when the text is not one certificate. */
export async function describeRoot(certificatePem: string): Promise<RootDescription> {
  const certificate = parseRoot(certificatePem)
  const x509 = await loadX509()
  const { subjectName } = new x509.X509Certificate(new Uint8Array(certificate.raw))
  return {
    certificatePem,
    issuerSubject: Buffer.from(subjectName.toArrayBuffer()).toString('base64'),
    issuerPublicKey: certificate.publicKey
      .export({ type: 'spki', format: 'der' })
      .toString('base64'),
  }
}

/** 128 random bits, positive and never 0, as RFC 5280 asks in 4.1.2.2. */
export function randomSerial(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40
  return bytes.toString('hex')
}

function parseRoot(pem: string): X509Certificate {
  const count = pem.split('-----BEGIN CERTIFICATE-----').length - 1
  if (count !== 1) throw notRoot(`there are ${count} certificates in it, and it takes exactly one`)
  try {
    return new X509Certificate(pem)
  } catch (cause) {
    throw notRoot('it can not be read', cause)
  }
}

function notRoot(why: string, cause?: unknown): UserError {
  return new UserError('invalidInput', `this root CA can not be used: ${why}`, {
    next: 'Give one self-signed CA certificate and its private key, both as PEM.',
    cause,
  })
}
