import { createHash, createPublicKey, X509Certificate } from 'node:crypto'
import { withNewline } from './x509.ts'

/** SHA-256 of a public key (SPKI, DER), base64: what a node is known by, whatever certificate it shows. */
export function publicKeyHashOf(
  certificate: X509Certificate | { readonly keyPem: string },
): string {
  const key =
    certificate instanceof X509Certificate
      ? certificate.publicKey
      : createPublicKey(certificate.keyPem)
  return createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest('base64')
}

/** SHA-256 of a root's PEM, base64. */
export function rootHashOf(certificatePem: string): string {
  return createHash('sha256').update(withNewline(certificatePem)).digest('base64')
}
