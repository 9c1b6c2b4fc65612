type X509 = typeof import('@peculiar/x509')

/**
 * The library that reads and writes certificates, loaded when first needed: it takes 0.2 s and 10 MB, and most
 * starts of the daemon make no certificate.
 */
export async function loadX509(): Promise<X509> {
  await import('reflect-metadata') // The library's decorators need it to be there before them.
  // A bundle that is split into chunks has the library's CommonJS form, with everything under `default`.
  const loaded: X509 & { readonly default?: X509 } = await import('@peculiar/x509')
  return loaded.default ?? loaded
}

/** PEM as OpenSSL writes it, with the newline at the end that the digests in join tokens include. */
export function withNewline(pem: string): string {
  return pem.endsWith('\n') ? pem : `${pem}\n`
}
