"""A set of modules to begin with, which `sandpost module starter` asks for: each with its licence and purpose. Pure."""

from typing import NamedTuple


class Starter(NamedTuple):
    """One module of the set."""

    spec: str
    licence: str
    """SPDX, of the package itself; what it depends on has its own."""
    purpose: str


STARTERS = (
    Starter("npm:async@3.2.6", "MIT", "control flow with callbacks"),
    Starter("npm:axios@1.21.1", "MIT", "HTTP client"),
    Starter("npm:bluebird@3.7.2", "MIT", "promises"),
    Starter("npm:express@5.3.0", "MIT", "web framework"),
    Starter("npm:handlebars@4.7.10", "MIT", "templates"),
    Starter("npm:ioredis@6.0.0", "MIT", "client of Redis"),
    Starter("npm:jsonwebtoken@9.0.3", "MIT", "JSON Web Tokens"),
    Starter("npm:lodash@4.18.1", "MIT", "functions for data"),
    Starter("npm:moment@2.31.0", "MIT", "dates"),
    Starter("npm:mongodb@7.8.0", "Apache-2.0", "client of MongoDB"),
    Starter("npm:mysql2@3.24.5", "MIT", "client of MySQL"),
    Starter("npm:nodemailer@10.6.0", "MIT-0", "sends mail"),
    Starter("npm:pg@8.23.1", "MIT", "client of PostgreSQL"),
    Starter("npm:superagent@10.4.2", "MIT", "HTTP client"),
    Starter("npm:underscore@1.13.8", "MIT", "functions for data"),
    Starter("npm:ws@8.23.0", "MIT", "WebSocket"),
    Starter("pypi:httpx==0.28.1", "BSD-3-Clause", "HTTP client"),
)
