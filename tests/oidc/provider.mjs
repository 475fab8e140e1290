// SPDX-License-Identifier: Apache-2.0
// npm's oidc-provider, a certified OpenID provider, on loopback, with its own pages, where every name is a person's.
// Arguments: the client's id and secret, and `lean` for ID tokens that have no claims but `sub`, as it does by default.
// It prints its issuer when it listens.
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const [client, secret, lean] = process.argv.slice(2);
const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: client,
        client_secret: secret,
        application_type: 'native', // of which a redirect to loopback may have any port (RFC 8252, 7.3)
        grant_types: ['authorization_code', 'urn:ietf:params:oauth:grant-type:device_code'],
        redirect_uris: ['http://127.0.0.1/login/back'],
        response_types: ['code'],
      },
    ],
    claims: {
      openid: ['sub'],
      profile: ['preferred_username'],
      email: ['email', 'email_verified'],
      groups: ['groups'],
    },
    conformIdTokenClaims: lean === 'lean',
    features: { deviceFlow: { enabled: true } },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({
        sub: id,
        preferred_username: id,
        email: `${id}@example.org`,
        email_verified: true,
        groups: id === 'bob' ? [] : ['ops'],
      }),
    }),
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
