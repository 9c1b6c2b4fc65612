import { createPrivateKey, createPublicKey, type KeyObject, type webcrypto } from 'node:crypto'
import { UserError } from '../base/index.ts'

/** A private key as Web Crypto signs with it. */
export interface SigningKey {
  readonly privateKey: webcrypto.CryptoKey
  readonly publicKey: webcrypto.CryptoKey
  readonly algorithm: { readonly name: string; readonly hash: string }
}

/** ECDSA curves by OpenSSL's name, with Web Crypto's and a hash as strong. */
const curves: ReadonlyMap<string, { readonly name: string; readonly hash: string }> = new Map([
  ['prime256v1', { name: 'P-256', hash: 'SHA-256' }],
  ['secp384r1', { name: 'P-384', hash: 'SHA-384' }],
  ['secp521r1', { name: 'P-521', hash: 'SHA-512' }],
])
const rsaBitsMin = 2048

const accepted = 'an ECDSA key (P-256, P-384, P-521) or an RSA key of 2048 bits or more'

function importParameters(key: KeyObject): { name: string; hash: string; namedCurve?: string } {
  const details = key.asymmetricKeyDetails
  const curve = curves.get(details?.namedCurve ?? '')
  if (key.asymmetricKeyType === 'ec' && curve) {
    return { name: 'ECDSA', hash: curve.hash, namedCurve: curve.name }
  }
  if (key.asymmetricKeyType === 'rsa' && (details?.modulusLength ?? 0) >= rsaBitsMin) {
    return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
  }
  throw new UserError('invalidInput', 'this kind of key is not accepted', {
    next: `Use ${accepted}.`,
  })
}

/** Reads a private key (PEM, not encrypted). Throws `invalidInput`, never quoting the key. */
export function signingKeyFromPem(pem: string): SigningKey {
  let key: KeyObject
  try {
    key = createPrivateKey(pem)
  } catch {
    throw new UserError('invalidInput', 'the private key can not be read', {
      next: `Give ${accepted}, as PEM and not encrypted.`,
    })
  }
  const parameters = importParameters(key)
  return {
    privateKey: key.toCryptoKey(parameters, true, ['sign']),
    publicKey: createPublicKey(key).toCryptoKey(parameters, true, ['verify']),
    algorithm: { name: parameters.name, hash: parameters.hash },
  }
}

/** Reads a public key (SPKI PEM) that a certificate may be made for. Throws `invalidInput`. */
export function publicKeyFromPem(pem: string): webcrypto.CryptoKey {
  let key: KeyObject
  try {
    key = createPublicKey(pem)
  } catch {
    throw new UserError('invalidInput', 'the public key can not be read', {
      next: `Give ${accepted}, as PEM.`,
    })
  }
  return key.toCryptoKey(importParameters(key), true, ['verify'])
}
