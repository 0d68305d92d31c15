// Compiles as `csc` would. Roslyn comes here as libraries, and what compiles this cannot read them: so they are asked by name.

using System;
using System.Collections;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Reflection;
using System.Text;
using System.Threading;

static class Roslyn
{
    // The folder of Roslyn, and the words for `csc`.
    static int Main(string[] args)
    {
        var folder = args[0];
        var core = Assembly.LoadFrom(Path.Combine(folder, "Microsoft.CodeAnalysis.dll"));
        var csharp = Assembly.LoadFrom(Path.Combine(folder, "Microsoft.CodeAnalysis.CSharp.dll"));
        dynamic parser = Of(csharp, "CSharp.CSharpCommandLineParser").GetProperty("Default").GetValue(null);
        dynamic words = parser.Parse(args.Skip(1), Directory.GetCurrentDirectory(), null, null);
        if (Said(words.Errors)) return 1;

        var parse = Of(csharp, "CSharp.CSharpSyntaxTree").GetMethods().First(method => method.Name == "ParseText"
            && method.GetParameters().Length == 5 && method.GetParameters()[3].ParameterType == typeof(Encoding));
        var trees = Many(Of(core, "SyntaxTree"));
        foreach (var file in words.SourceFiles)
        {
            string path = file.Path;
            trees.Add(parse.Invoke(null, new object[] { File.ReadAllText(path), words.ParseOptions, Path.GetFileName(path), Encoding.UTF8, CancellationToken.None }));
        }
        var reference = Of(core, "MetadataReference").GetMethod("CreateFromFile");
        var references = Many(Of(core, "MetadataReference"));
        foreach (var named in words.MetadataReferences)
        {
            references.Add(reference.Invoke(null, new object[] { (string)named.Reference, named.Properties, null }));
        }
        var create = Of(csharp, "CSharp.CSharpCompilation").GetMethod("Create");
        dynamic compilation = create.Invoke(null, new object[] { words.CompilationName, trees, references, words.CompilationOptions });
        using (var assembly = new MemoryStream())
        {
            dynamic made = compilation.Emit(assembly);
            if (Said(made.Diagnostics) || !made.Success) return 1;
            File.WriteAllBytes(Path.Combine((string)words.OutputDirectory, (string)words.OutputFileName), assembly.ToArray());
        }
        return 0;
    }

    static Type Of(Assembly assembly, string name)
    {
        return assembly.GetType("Microsoft.CodeAnalysis." + name, true);
    }

    static IList Many(Type type)
    {
        return (IList)Activator.CreateInstance(typeof(List<>).MakeGenericType(type));
    }

    // Whether there are errors; they are printed.
    static bool Said(IEnumerable diagnostics)
    {
        var failed = false;
        foreach (dynamic diagnostic in diagnostics)
        {
            if (diagnostic.Severity.ToString() != "Error") continue;
            failed = true;
            Console.Error.WriteLine(diagnostic.ToString());
        }
        return failed;
    }
}
